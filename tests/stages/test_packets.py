"""Of a clip only what its wanted pictures need is decoded, and they are those of a decode of the whole, to the bit."""

import contextlib
import random
import subprocess
from fractions import Fraction
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from stages.encode import ClipWriter
from stages.media import frames, frames_at
from stages.packets import every_packet, needed
from tests import media
from tests.benchmarks.counts import counted

N_FRAMES = 110  # four groups and a part


def moving(n: int) -> list[np.ndarray]:
    """A texture that drifts, rests, and drifts: the encoder takes B-frames of both kinds."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 256, (20, 40, 3), np.uint8), (400, 200), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(texture[20:116, at : at + 96]) for at in np.abs(np.arange(n) % 120 - 60) + 9]


def whole(path: Path) -> list[np.ndarray]:
    return [image for batch in frames(path) for image in batch.images]


def equal(path: Path, pictures: list[np.ndarray], wanted: set[int]) -> bool:
    found = list(frames_at(path, wanted))
    there = [number for number in sorted(wanted) if number < len(pictures)]
    return [number for number, _ in found] == there and all(np.array_equal(image, pictures[k]) for k, image in found)


def sets_of(n: int) -> list[set[int]]:
    some = random.Random(0)
    drawn = [set(some.sample(range(n), some.randint(1, 12))) for _ in range(12)]
    return [{0}, {n - 1}, {0, n - 1}, {n // 2}, set(range(n)), {n - 1, n, n + 50}, {n + 50}, *drawn]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "0000.mp4"
    with contextlib.closing(ClipWriter(path, 96)) as writer:
        for image in moving(N_FRAMES):
            writer.write(image)
        writer.finish(np.zeros(N_FRAMES * 640, np.int16))
    return path


def test_pictures_of_a_clip_are_those_of_the_whole_and_few_others_are_decoded(clip):
    pictures = whole(clip)
    assert len(pictures) == N_FRAMES
    assert all(equal(clip, pictures, wanted) for wanted in sets_of(N_FRAMES))
    for number in range(N_FRAMES):  # one at a time: never a picture of another group
        with counted() as counts:
            assert equal(clip, pictures, {number})
        assert counts.decoded[str(clip)] <= number % 25 + 1 + 3  # a B-frame comes after those that it refers to
    with counted() as counts:
        assert equal(clip, pictures, {24, 49, 99})
    assert counts.decoded[str(clip)] < 60, "others that none refers to are left out"


FOREIGN = {
    "open groups": "a.mp4 -c:v libx264 -x264-params open-gop=1:keyint=25:bframes=3",
    "no groups": "a.mp4 -c:v libx264 -x264-params intra-refresh=1:keyint=25:bframes=0",
    "interlaced": "a.mp4 -c:v libx264 -x264-params interlaced=1:keyint=25",
    "another rate": "a.mp4 -c:v libx264 -r 30000/1001",
    "a hole": r"a.mp4 -c:v libx264 -vf select=not(between(n\,30\,40)) -fps_mode vfr",
    "another encoder": "a.mp4 -c:v mpeg4 -bf 2",
    "no presentation times": "a.avi -c:v libx264 -bf 2",
    "rounded times": "a.mkv -c:v libx264",
    "late stamps": "a.ts -c:v libx264",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_of_files_that_are_not_ours_everything_is_decoded_and_the_pictures_are_the_same(tmp_path, kind):
    name, *how = FOREIGN[kind].split()
    path = tmp_path / name
    given = ["-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "96x96", "-r", "25", "-i", "-"]
    made = [imageio_ffmpeg.get_ffmpeg_exe(), *given, *how, "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(made, input=b"".join(image.tobytes() for image in moving(N_FRAMES)), check=True)
    pictures = whole(path)
    assert needed(path, {3}) is every_packet
    assert all(equal(path, pictures, wanted) for wanted in sets_of(len(pictures))[:10])


def test_a_file_that_another_program_wrote_as_we_do_is_read_as_ours(tmp_path):
    path = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(25), 6))
    pictures = whole(path)
    assert needed(path, {3}) is not every_packet
    assert all(equal(path, pictures, wanted) for wanted in sets_of(len(pictures)))


def test_of_a_file_that_ends_early_everything_is_decoded_that_is_there(tmp_path, clip):
    path = media.cut_off(clip, tmp_path / "v.mp4", 0.6)
    pictures = whole(path)
    assert 30 < len(pictures) < N_FRAMES
    assert equal(path, pictures, {3, 29, len(pictures) - 1})
