"""ffmpeg is found on every machine and never runs for ever."""

import subprocess
import time
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import pytest

from stages import ffmpeg
from stages.container import opened, picture_stream
from stages.ffmpeg import CutError, bounded_ffmpeg, cut, ffmpeg_path
from stages.media import probe
from tests.media import Sound, hum, numbered_video, times_at


@pytest.fixture
def hanging(tmp_path, monkeypatch) -> Path:
    """A system ffmpeg that hangs, as the real one does on some bad files."""
    program = tmp_path / "bin/ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 61\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_a_system_ffmpeg_is_preferred_and_the_wheel_has_one_otherwise(hanging, monkeypatch):
    assert ffmpeg_path() == str(hanging)
    monkeypatch.setenv("PATH", "")
    assert ffmpeg_path() == imageio_ffmpeg.get_ffmpeg_exe()


def test_a_library_s_ffmpeg_is_killed_in_time(hanging, tmp_path):
    program = bounded_ffmpeg(tmp_path, 0.5)
    begin = time.monotonic()
    assert subprocess.run([program, "-version"], capture_output=True, check=False).returncode != 0
    assert time.monotonic() - begin < 10


def test_the_bounded_ffmpeg_is_the_real_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    program = bounded_ffmpeg(tmp_path, 60)
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("ffmpeg version")


@pytest.mark.usefixtures("hanging")
def test_a_cut_that_hangs_ends_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "_MARGIN_S", 0.5)
    with pytest.raises(CutError, match="longer than"):
        cut(tmp_path / "a.mp4", tmp_path / "b.mp4", 0.0, 0.01, streams=(0, 1), copy=True)


def test_a_cut_of_what_is_not_there_says_so(tmp_path):
    path = numbered_video(tmp_path / "a.mp4", times_at(Fraction(25), 1), sound=Sound(samples=hum(1)))
    cut(path, tmp_path / "b.mp4", 0.2, 0.8, streams=(0, 1), copy=True)
    with pytest.raises(CutError, match="No such file"):
        cut(tmp_path / "none.mp4", tmp_path / "b.mp4", 0.0, 1.0, streams=(0, 1), copy=True)


def test_no_list_of_other_files_is_cut(tmp_path):
    path = numbered_video(tmp_path / "own.mp4", times_at(Fraction(25), 1), sound=Sound(samples=hum(1)))
    subprocess.run([ffmpeg_path(), "-v", "error", "-i", path, "-c", "copy", tmp_path / "own.ts"], check=True)
    named = tmp_path / "a.m3u8"
    named.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/own.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(CutError, match="Error opening input file"):
        cut(named, tmp_path / "b.mp4", 0.2, 0.8, streams=(0, 1), copy=True)


def test_a_full_disk_is_not_blamed_on_the_file_that_is_cut(tmp_path):
    path = numbered_video(tmp_path / "a.mp4", times_at(Fraction(25), 1), sound=Sound(samples=hum(1)))
    (tmp_path / "full.mp4").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        cut(path, tmp_path / "full.mp4", 0.2, 0.8, streams=(0, 1), copy=True)


def test_a_part_is_cut_from_the_stream_that_is_watched(tmp_path):
    """A recording with a small camera track first and the large picture second."""
    small, large = (
        numbered_video(tmp_path / f"{width}.mp4", times_at(Fraction(25), 2), width_px=width, height_px=height)
        for width, height in ((160, 96), (640, 360))
    )
    sound = numbered_video(tmp_path / "s.mp4", times_at(Fraction(25), 2), sound=Sound(samples=hum(2)))
    both = tmp_path / "both.mp4"
    inputs = [part for path in (small, large, sound) for part in ("-i", str(path))]
    maps = ["-map", "0:v", "-map", "1:v", "-map", "2:a"]
    subprocess.run([ffmpeg_path(), "-v", "error", *inputs, *maps, "-c", "copy", str(both)], check=True)
    with opened(both) as container:
        assert picture_stream(container).index == 1
    cut(both, tmp_path / "part.mp4", 0.4, 1.6, streams=(1, 2), copy=True)
    found = probe(tmp_path / "part.mp4")
    assert (found.video.width_px, found.video.height_px) == (640, 360)
