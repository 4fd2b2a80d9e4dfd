"""Parts of files whose beginning, order or size ffmpeg alone gets wrong: B-frames in FLV and AVI, odd sides."""

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manifests.records import Source
from stages.ffmpeg import ffmpeg_path
from stages.media import audio_array, frames
from tests.media import Look, Sound, click_times, clicks, hum, numbered_video, read_number, times_at
from tests.stages.fetching import Fetching

CLICKS_S = [0.4, 1.0, 3.0, 5.0]
CODINGS = {
    "h264.flv": ("libx264", "-x264-params", "b-adapt=0:keyint=60"),
    "h264.avi": ("libx264", "-x264-params", "b-adapt=0:keyint=60"),  # two pictures are held back for their order
    "mpeg4.avi": ("mpeg4", "-q:v", "2", "-bf", "2", "-g", "60"),  # and one
    "in_order.avi": ("mpeg4", "-q:v", "2", "-g", "60"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Eight seconds of numbered pictures and clicks, as each coding has them."""
    folder = tmp_path_factory.mktemp("parts")
    sound = Sound(samples=clicks(CLICKS_S, 8.0), codec="pcm_s16le")
    plain = numbered_video(folder / "plain.mkv", times_at(Fraction(25), 8), look=Look(gop=1, b_frames=0), sound=sound)
    for name, coding in CODINGS.items():
        tone = "aac" if name.endswith("flv") else "pcm_s16le"
        command = [ffmpeg_path(), "-v", "error", "-i", plain, "-c:v", *coding, "-c:a", tone, folder / name]
        subprocess.run(command, check=True)
    return {name: folder / name for name in CODINGS}


def shown(path: Path, **span: float | None) -> list[int]:
    return [read_number(image) for batch in frames(path, **span) for image in batch.images]


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("start_s", [None, 0.0, 0.04, 0.12, 0.24, 1.08, 2.4, 2.96])
def test_a_part_shows_what_the_whole_file_does_and_clicks_when_it_does(files, tmp_path, name, start_s):
    fetch, first_s = Fetching(tmp_path), start_s or 0.0
    source = fetch(files[name], start_s=start_s, end_s=first_s + 2)
    assert isinstance(source, Source)
    part = fetch.store.get_file(source.file.path, tmp_path)
    assert shown(part, end_s=source.stop_s) == list(range(round(first_s * 25), round(first_s * 25) + 50))
    heard = click_times(audio_array(files[name], start_s=first_s, end_s=first_s + 2))
    assert len(heard) == sum(first_s <= at < first_s + 2 for at in CLICKS_S)
    assert click_times(audio_array(part, start_s=0.0, end_s=2.0)) == pytest.approx(heard, abs=0.005)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "width_px", "height_px", "added_px"),
    [
        ("libvpx", "yuv420p", 161, 97, (1, 1)),
        ("libvpx", "yuv420p", 160, 97, (1, 0)),
        ("libvpx", "yuv420p", 161, 96, (0, 1)),
        ("libvpx", "yuv420p", 162, 98, (0, 0)),
        ("ffv1", "yuv410p", 161, 98, (2, 3)),  # one colour for 4 x 4 pixels, as Indeo has
    ],
)
def test_a_part_of_odd_sides_that_is_encoded_anew_has_every_pixel_where_it_was(
    tmp_path, codec, pix_fmt, width_px, height_px, added_px
):
    sound, look = Sound(samples=hum(4), codec="libopus"), Look(codec=codec, pix_fmt=pix_fmt, b_frames=0)
    times = times_at(Fraction(25), 4)
    path = numbered_video(tmp_path / "a.mkv", times, width_px=width_px, height_px=height_px, look=look, sound=sound)
    fetch = Fetching(tmp_path)
    source = fetch(path, start_s=1.0, end_s=2.0)
    assert isinstance(source, Source)
    part = fetch.store.get_file(source.file.path, tmp_path)
    wanted, found = (
        np.concatenate([batch.images for batch in frames(file, **span)]).astype(int)
        for file, span in ((path, {"start_s": 1.0, "end_s": 2.0}), (part, {"end_s": 1.0}))
    )
    assert found.shape == (25, height_px + added_px[0], width_px + added_px[1], 3)
    assert np.abs(found[:, : height_px - 1, : width_px - 1] - wanted[:, :-1, :-1]).mean() < 2


@pytest.mark.parametrize("size", ["1280x720", "320x240"])
@pytest.mark.parametrize("coding", ["png", "qtrle"])
def test_a_part_of_pictures_that_are_coded_in_rgb_keeps_their_colours(tmp_path, coding, size):
    path, colour = tmp_path / "a.mov", (30, 60, 200)  # of a screen: ffmpeg makes YCbCr of it by the matrix of SD
    picture = ["-f", "lavfi", "-i", "color=0x{2:02x}{1:02x}{0:02x}:r=25:d=3:s=".format(*colour) + size]
    sound = ["-f", "lavfi", "-i", "sine=d=3", "-c:a", "pcm_s16le"]
    subprocess.run(
        [ffmpeg_path(), "-v", "error", *picture, *sound, "-c:v", coding, "-pix_fmt", "rgb24", path], check=True
    )
    fetch = Fetching(tmp_path)
    source = fetch(path, start_s=1.0, end_s=2.0)
    assert isinstance(source, Source)
    images = next(iter(frames(fetch.store.get_file(source.file.path, tmp_path)))).images
    assert np.abs(np.array(images, int) - colour).max() <= 5
