"""Streams as broadcasts have them: interlaced, with sound that changes its form on the way."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from stages.container import Decoded, whole
from stages.media import audio, frames, pictures
from tests import media


def images(path: Path) -> np.ndarray:
    return np.concatenate([batch.images for batch in frames(path)])


def test_sound_that_changes_its_channels_and_rate_midway_goes_on(tmp_path):
    """As broadcasts do between a film and its advertisements."""
    forms = ((2, 48_000), (1, 48_000), (2, 44_100))
    for n, (channels, rate_hz) in enumerate(forms):
        with av.open(str(tmp_path / f"{n}.aac"), "w", format="adts") as container:
            stream = container.add_stream("aac", rate=rate_hz, layout="stereo" if channels == 2 else "mono")
            tone = np.sin(np.arange(2 * rate_hz) * 2 * np.pi * 440 / rate_hz) * 8000
            samples = np.repeat(tone.astype(np.int16)[:, None], channels, 1)
            for frame in media._sound_frames(
                media.Sound(samples=samples[:, 0] if channels == 1 else samples, rate_hz=rate_hz), stream.codec_context
            ):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    (tmp_path / "all.aac").write_bytes(b"".join((tmp_path / f"{n}.aac").read_bytes() for n in range(3)))
    heard = np.concatenate(list(audio(tmp_path / "all.aac")))
    assert len(heard) / 16_000 == pytest.approx(6.0, abs=0.3)
    for second in (1, 3, 5):
        part = heard[round((second - 0.3) * 16_000) : round((second + 0.3) * 16_000)].astype(float)
        spectrum = np.abs(np.fft.rfft(part))
        assert spectrum.argmax() / 0.6 == pytest.approx(440, abs=5) and part.std() > 3000


def woven(n: int) -> list[np.ndarray]:
    """Pictures of a bar that moves 6 px a field, their odd rows an instant later than the even ones."""
    fields = []
    for k in range(2 * n):
        image = np.full((240, 320, 3), 40, np.uint8)
        image[:, 20 + 6 * k % 200 : 60 + 6 * k % 200] = 220
        fields.append(image)
    frames_ = [fields[2 * k].copy() for k in range(n)]
    for k, picture in enumerate(frames_):
        picture[1::2] = fields[2 * k + 1][1::2]
    return frames_


def combing(image: np.ndarray) -> float:
    """How unlike a row is to the mean of its neighbours."""
    rows = image[..., 1].astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


def test_interlaced_pictures_are_made_whole_and_no_picture_is_lost_or_moved(tmp_path):
    made = woven(50)
    said = ["-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "320x240", "-r", "25", "-i", "-"]
    kind = ["-vf", "setfield=tff,format=yuv420p", "-c:v", "libx264", "-flags", "+ildct+ilme", "-crf", "12"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *said, *kind, str(tmp_path / "i.ts")]
    subprocess.run(command, input=b"".join(p.tobytes() for p in made), check=True)
    shown = images(tmp_path / "i.ts")
    assert len(shown) == 50
    combed = np.mean([combing(picture) for picture in made])
    assert np.mean([combing(picture) for picture in shown]) < combed / 5
    for k in (3, 20, 44):  # the instant of the first field, in the middle of the bar's rows
        columns = np.flatnonzero(shown[k][120, :, 1] > 130)
        assert abs(columns.min() - (20 + 12 * k % 200)) <= 3
    assert [p.number for p in pictures(tmp_path / "i.ts")] == list(range(50))


def test_pictures_that_are_not_interlaced_pass_untouched(tmp_path):
    path = media.numbered_video(tmp_path / "p.mp4", media.times_at(Fraction(25), 1))
    with av.open(str(path)) as container:
        found = [Decoded(0.0, 0.04, frame, None) for frame in container.decode(video=0)]
    assert [a is b for a, b in zip(whole(iter(found)), found, strict=True)] == [True] * 25
