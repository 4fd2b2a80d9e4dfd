"""Streams as broadcasts have them: interlaced, with sound that changes its form on the way."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from pipeline.stage import deadline
from stages.container import Decoded, whole
from stages.ffmpeg import cut
from stages.media import audio, frames, frames_at, pictures, probe
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


def test_a_picture_of_another_shape_midway_is_shown_whole_in_the_middle_of_the_first(tmp_path):
    """A call's recording, 4:3 and then 16:9 and then upright; the bright square has the same pixels in each."""
    parts = []
    for n, (width, height) in enumerate(((320, 240), (640, 360), (240, 320))):
        image = np.full((height, width, 3), 60, np.uint8)
        image[height // 2 - 40 : height // 2 + 40, width // 2 - 40 : width // 2 + 40] = 230
        times = [time + n for time in media.times_at(Fraction(25), 1)]
        path = media.write_video(tmp_path / f"{n}.ts", ((time, image) for time in times), look=media.Look(b_frames=0))
        parts.append(path.read_bytes())
    (tmp_path / "all.ts").write_bytes(b"".join(parts))
    shown = images(tmp_path / "all.ts")
    assert shown.shape[1:] == (240, 320, 3)
    for frame, side in ((12, 80), (37, 40), (62, 60)):
        rows, columns = np.nonzero(shown[frame][..., 1] > 145)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == pytest.approx((side, side), abs=2)
        assert (rows.mean(), columns.mean()) == pytest.approx((119.5, 159.5), abs=1.5)
    assert shown[37][:20].max() < 20 and shown[62][:, :60].max() < 20, "borders"


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


def disc(width: int, height: int, aspect: Fraction = Fraction(1)) -> np.ndarray:
    """A bright disc, half as high as the picture once its pixels are square."""
    image = np.full((height, width, 3), 40, np.uint8)
    axes = round(height / 4 / aspect), height // 4
    return cv2.ellipse(image, (width // 2, height // 2), axes, 0, 0, 360, (230,) * 3, -1)


def programmes(path: Path, *looks: tuple[np.ndarray, Fraction], length_s: int) -> Path:
    """Still pictures on end as a transport stream with sound, each with its size and pixel aspect."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    for n, (image, aspect) in enumerate(looks):
        height, width = image.shape[:2]
        raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", "25", "-i", "-"]
        tone = ["-f", "lavfi", "-i", "sine=440:r=48000", "-shortest", "-c:a", "aac"]
        kind = ["-vf", f"setsar={aspect.numerator}/{aspect.denominator}", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
        when = ["-bf", "0", "-g", "250", "-output_ts_offset", str(n * length_s), str(path.with_name(f"{n}.ts"))]
        command = [program, "-v", "error", "-y", *raw, *tone, *kind, "-preset", "ultrafast", *when]
        subprocess.run(command, input=image.tobytes() * 25 * length_s, check=True)
    path.write_bytes(b"".join(path.with_name(f"{n}.ts").read_bytes() for n in range(len(looks))))
    return path


def extent(image: np.ndarray) -> tuple[int, int]:
    rows, columns = np.nonzero(image[..., 1] > 130)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_pixels_that_change_their_aspect_with_the_programme_stay_square(tmp_path):
    """From standard to high definition, both 16:9 to a viewer."""
    wide = Fraction(64, 45)
    path = programmes(tmp_path / "a.ts", (disc(720, 576, wide), wide), (disc(1280, 720), Fraction(1)), length_s=2)
    shown = images(path)
    assert shown.shape[1:] == (576, 1024, 3)
    for frame in (10, 80):
        assert extent(shown[frame]) == pytest.approx((289, 289), abs=4)


def test_a_part_of_a_transport_stream_is_as_long_as_was_asked_and_keeps_every_shape(tmp_path):
    """Key frames are 10 s apart, and the size changes within the part."""
    looks = [(disc(320, 240), Fraction(1)), (disc(640, 360), Fraction(1))]
    path = programmes(tmp_path / "b.ts", *looks, length_s=30)
    cut(path, tmp_path / "part.mp4", 27.0, 33.0, streams=(0, 1), copy=False, changing=(320, 240))
    found, shown = probe(tmp_path / "part.mp4"), images(tmp_path / "part.mp4")
    assert found.duration_s == pytest.approx(6.0, abs=0.1) and len(shown) == pytest.approx(150, abs=2)
    assert extent(shown[40]) == pytest.approx((121, 121), abs=3)
    assert extent(shown[110]) == pytest.approx((91, 91), abs=3)
    assert len(np.concatenate(list(audio(tmp_path / "part.mp4")))) / 16_000 == pytest.approx(6.0, abs=0.1)
    cut(path, tmp_path / "late.mp4", 25.0, 28.0, streams=(0, 1), copy=False, changing=(320, 240))
    assert len(images(tmp_path / "late.mp4")) == pytest.approx(75, abs=2)


def interlaced(path: Path, made: list[np.ndarray], *coding: str) -> Path:
    """Woven pictures as a file that says so, with a silent sound."""
    said = ["-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "320x240", "-r", "25", "-i", "-"]
    silence = ["-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo", "-shortest"]
    kind = ["-vf", "setfield=tff,format=yuv420p", "-flags", "+ildct+ilme", *coding]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *said, *silence, *kind, str(path)]
    subprocess.run(command, input=b"".join(p.tobytes() for p in made), check=True)
    return path


@pytest.mark.parametrize("name", ["i.mpg", "i.avi", "i.mkv"])
def test_a_part_that_is_encoded_anew_has_its_interlaced_pictures_made_whole(tmp_path, name):
    made = woven(50)
    path = interlaced(tmp_path / name, made, "-c:v", "mpeg2video", "-q:v", "2")
    changing = (320, 240) if name == "i.mpg" else None
    cut(path, tmp_path / "part.mp4", 0.4, 1.6, streams=(0, 1), copy=False, changing=changing)
    shown = images(tmp_path / "part.mp4")
    assert 29 <= len(shown) <= 31
    assert np.mean([combing(picture) for picture in shown]) < np.mean([combing(picture) for picture in made]) / 5


def test_interlaced_pictures_are_made_whole_and_no_picture_is_lost_or_moved(tmp_path):
    made = woven(50)
    interlaced(tmp_path / "i.ts", made, "-c:v", "libx264", "-crf", "12")
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


def test_pictures_that_come_put_off_the_deadline_of_who_watches_a_long_video(tmp_path, monkeypatch):
    """Three hours of honest work on one video were killed as if they hung, three times."""
    armed: list[float] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda seconds, **_: armed.append(seconds))
    path = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(2), 25.0))
    for read in (pictures(path), frames(path), frames_at(path, [3, 620])):
        armed.clear()
        with deadline(9000.0):
            assert len(list(read)) > 0
        assert armed == [9000.0] * (1 + 3), "once for the call, and for every 10 s of video"


def test_pictures_that_become_too_large_within_a_part_are_left_out_of_it(tmp_path, monkeypatch):
    path = programmes(tmp_path / "b.ts", (disc(320, 240), Fraction(1)), (disc(640, 480), Fraction(1)), length_s=2)
    monkeypatch.setattr("stages.ffmpeg.MOST_PX", 320 * 240)
    cut(path, tmp_path / "part.mp4", 1.0, 3.0, streams=(0, 1), copy=False, changing=(320, 240))
    assert len(images(tmp_path / "part.mp4")) == 25
