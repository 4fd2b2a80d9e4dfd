"""The mp4 that is written: colours, sound in its place, and nothing left of processes that were ended."""

import os
import signal
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from manifests.scratch import machine
from mcdm.video import VideoWriter
from stages.sound import audio_array
from tests.mcdm.test_generate import generate


def test_pictures_keep_their_colours_and_sound_its_place_beside_them(tmp_path):
    pictures = np.zeros((50, 64, 64, 3), np.uint8)
    pictures[:25, ..., 0] = pictures[25:, ..., 2] = 255
    tone = 0.5 * np.sin(2 * np.pi * 440 / 16000 * np.arange(16000)).astype(np.float32)
    with VideoWriter(tmp_path / "o.mp4", 64) as writer:
        writer.hear(np.zeros(16000, np.float32))
        writer.hear(tone)
        for start in range(0, 50, 8):
            writer.show(pictures[start : start + 8])
    with av.open(str(tmp_path / "o.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [round(frame.time * 25) for frame in frames] == list(range(50))
    colours = [frames[n].to_ndarray(format="rgb24").mean((0, 1)) for n in (24, 25)]
    assert np.abs(colours - np.array([[255, 0, 0], [0, 0, 255]])).max() < 20
    loud = np.abs(audio_array(tmp_path / "o.mp4", start_s=0.0, end_s=2.0)) > 8000
    assert abs(int(loud.argmax()) - 16000) < 100 and loud[-1600:].any()


def test_a_process_that_is_told_to_end_leaves_no_half_a_video(seeing, tmp_path, monkeypatch, capsys):
    show = VideoWriter.show

    def told(self, pictures):
        show(self, pictures)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(VideoWriter, "show", told)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # where it is not handled, these tests would end
    try:
        assert generate(seeing, tmp_path / "o.mp4", "--seconds", "0.4") == 130
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.endswith("mcdm generate: interrupted; run the same command again\n")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_when_the_video_is_made_again(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = {who: f".o.{machine()}-{pid}.mp4" for who, pid in (("ended", ended.pid), ("alive", os.getppid()))}
    for name in (*names.values(), ".other.mp4"):
        (tmp_path / name).write_bytes(b"half")
    with VideoWriter(tmp_path / "o.mp4", 32) as writer:
        writer.show(np.zeros((2, 32, 32, 3), np.uint8))
    assert {path.name for path in tmp_path.iterdir()} == {"o.mp4", names["alive"], ".other.mp4"}


def test_a_place_that_takes_no_file_is_named_before_anything_is_shown():
    with pytest.raises(OSError, match=r"/proc/\.o\."), VideoWriter(Path("/proc/o.mp4"), 32):
        pytest.fail("it went on")
