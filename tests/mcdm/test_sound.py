"""A sound file is heard by the trainer's commands as the pipeline hears it, from its own beginning."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from mcdm.sound import sound_chunks
from stages.ffmpeg import ffmpeg_path
from stages.sound import audio_array

TONE = "sine=frequency=440:sample_rate=44100:duration={s},volume=8"


def made(path: Path, *words: object) -> Path:
    subprocess.run([ffmpeg_path(), "-v", "error", *map(str, words), path], check=True)
    return path


def heard(path: Path, seconds: float | None = None) -> np.ndarray:
    return np.concatenate(list(sound_chunks(path, seconds)))


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.square(samples.astype(np.float64)).mean()))


def test_of_two_channels_in_opposite_phase_the_voice_is_heard(tmp_path: Path):
    opposed = made(tmp_path / "opposed.wav", "-f", "lavfi", "-i", TONE.format(s=2) + ",pan=stereo|c0=c0|c1=-0.98*c0")
    samples = heard(opposed)
    assert level(samples) > 0.3 and len(samples) == 2 * 16000
    assert np.array_equal(samples * 32768, audio_array(opposed, start_s=0.0, end_s=2.0))


@pytest.mark.parametrize("seconds", [None, 4.0])
def test_channels_that_change_and_damaged_bytes_do_not_end_a_sound(tmp_path: Path, seconds: float | None):
    mono = made(tmp_path / "mono.aac", "-f", "lavfi", "-i", TONE.format(s=2))
    stereo = made(tmp_path / "stereo.aac", "-f", "lavfi", "-i", TONE.format(s=2) + ",pan=stereo|c0=c0|c1=c0")
    damaged = bytearray(stereo.read_bytes())
    for at in range(len(damaged) // 2, len(damaged) // 2 + 600):
        damaged[at] = (damaged[at] * 7 + 13) & 255
    for name, data in (("both.aac", stereo.read_bytes() + mono.read_bytes()), ("damaged.aac", bytes(damaged) * 2)):
        (tmp_path / name).write_bytes(data)
        samples = heard(tmp_path / name, seconds)
        assert len(samples) >= 3.2 * 16000
        assert level(samples[:12800]) > 0.3 and level(samples[-12800:]) > 0.3


@pytest.mark.parametrize("late_s", [0.6, 3.0])
@pytest.mark.parametrize("late", ["sound", "pictures"])
def test_the_sound_of_a_video_begins_with_its_first_sample_whenever_its_pictures_begin(
    tmp_path: Path, late: str, late_s: float
):
    sound = ["-f", "lavfi", "-i", TONE.format(s=2)]
    pictures = ["-f", "lavfi", "-i", "color=size=64x64:rate=25:duration=6"]
    shift = ["-itsoffset", late_s]
    given = [*pictures, *shift, *sound] if late == "sound" else [*shift, *pictures, *sound]
    samples = heard(made(tmp_path / "film.mkv", *given, "-c:a", "flac", "-c:v", "libx264"))
    assert abs(len(samples) - 2 * 16000) <= 640 and level(samples[:1600]) > 0.3 and level(samples[-1600:]) > 0.3


@pytest.mark.parametrize(("data", "why"), [(b"", "empty"), (b"nonsense" * 99, "not_a_video"), (None, "FileNotFound")])
def test_what_holds_no_sound_is_named_in_one_line(tmp_path: Path, data: bytes | None, why: str):
    path = tmp_path / "speech.wav"
    if data is not None:
        path.write_bytes(data)
    for seconds in (None, 1.0):
        with pytest.raises(ValueError, match=rf"^\S+speech\.wav: no sound that can be read \({why}\w*\)$"):
            sound_chunks(path, seconds)
