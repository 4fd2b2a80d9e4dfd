"""What the sample face networks learn from: rendered people in rendered scenes, and ways to spoil the pictures.

People are seeds from `FIRST_PERSON` on and scenes from `FIRST_SCENE` on, far from those of the corpus.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.sample.motion import Motion, pick, talk
from manifests.sample.person import person
from manifests.sample.render import Face, Seat, render, render_empty
from manifests.sample.scene import Scene, scene

FIRST_PERSON = 500_000
FIRST_SCENE = 500_000
SIZE = (480, 270)
"""Width and height of a picture."""

_SCENES_EACH, _FRAMES_EACH = 3, 2
_PHONEMES = tuple("mbpfvtdlszrkwieaəouyø")
_MOST_FACES = 2

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pictures:
    """n pictures (n, 270, 480, 3) BGR and at most two faces in each; a missing face has person -1.

    `box` (n, 2, 4) corners, `lmk` (n, 2, 5, 2), `person` (n, 2). Pixels. `empty` (m, 270, 480, 3) show nobody.
    """

    image: Image
    empty: Image
    box: Floats
    lmk: Floats
    person: NDArray[np.int32]


def pictures(folder: Path, *, people: int, seed: int) -> Pictures:
    """Render them into a folder of their own in `folder`, or read what an equal call rendered."""
    folder = folder / f"{people}-people-seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    truth, image_file, empty_file = folder / "truth.npz", folder / "image.npy", folder / "empty.npy"
    if not truth.is_file():
        n = people * _SCENES_EACH * _FRAMES_EACH
        shape = (n, SIZE[1], SIZE[0], 3)
        image = np.lib.format.open_memmap(image_file, "w+", np.uint8, shape)
        box = np.zeros((n, _MOST_FACES, 4), np.float32)
        lmk = np.zeros((n, _MOST_FACES, 5, 2), np.float32)
        who = np.full((n, _MOST_FACES), -1, np.int32)
        for i, (frame, seats, faces) in enumerate(_rendered(people, seed)):
            image[i] = frame[..., ::-1]
            for j, (number, face) in enumerate(zip(seats, faces, strict=True)):
                box[i, j], lmk[i, j], who[i, j] = face.box, face.landmarks, number
        np.save(empty_file, np.stack(list(_scenery(people // 2, seed))))
        image.flush()
        np.savez(truth, box=box, lmk=lmk, person=who)
    with np.load(truth) as known:
        return Pictures(
            image=np.load(image_file, mmap_mode="r"),
            empty=np.load(empty_file, mmap_mode="r"),
            box=known["box"],
            lmk=known["lmk"],
            person=known["person"],
        )


def _rendered(people: int, seed: int) -> Iterator[tuple[Image, tuple[int, ...], tuple[Face, ...]]]:
    """Pictures of every person in turn, sometimes beside the one before."""
    for number in range(people):
        for k in range(_SCENES_EACH):
            rng = np.random.default_rng([seed, number, k])
            where = scene(FIRST_SCENE + number * _SCENES_EACH + k, *SIZE)
            seats = [Seat(person(FIRST_PERSON + number), _moving(rng), where.centre, where.head_px)]
            numbers: tuple[int, ...] = (number,)
            if number and rng.random() < 0.25:
                seats, numbers = _beside(rng, seats[0], number, where), (number, number - 1)
            for frame, faces in render(seats, where, supersample=1.25):
                yield frame, numbers, faces


def _beside(rng: np.random.Generator, first: Seat, number: int, where: Scene) -> list[Seat]:
    head_px = min(where.head_px, 0.30 * where.width)
    left = float(rng.uniform(0.22, 0.30))
    other = person(FIRST_PERSON + number - 1)
    return [
        Seat(first.person, first.motion, (left, where.centre[1]), head_px),
        Seat(other, _moving(rng), (1 - left, where.centre[1]), head_px * float(rng.uniform(0.8, 1.0))),
    ]


def _moving(rng: np.random.Generator) -> Motion:
    """A few frames, seconds apart, of somebody who talks, turned any way."""
    times = np.arange(0, 8, 0.12)
    said = tuple((str(p), float(t), float(t + 0.12)) for p, t in zip(rng.choice(_PHONEMES, len(times)), times))  # noqa: B905
    turned = float(np.clip(rng.normal(0, 24), -65, 65))
    motion = talk(said, 200, int(rng.integers(1 << 30)), yaw_deg=turned, pitch_deg=float(rng.normal(0, 9)))
    return pick(motion, np.sort(rng.choice(200, _FRAMES_EACH, replace=False)))


def _scenery(n: int, seed: int) -> Iterator[Image]:
    for k in range(n):
        where = scene(FIRST_SCENE * 2 + seed * n + k, *SIZE)
        for frame in render_empty(where, 1):
            yield frame[..., ::-1]


def spoilt(rng: np.random.Generator, image: Image) -> Image:
    """The picture as a bad camera, a bad light or a bad codec would show it."""
    out = image.astype(np.float32)
    if rng.random() < 0.6:
        out = (out - 128) * rng.uniform(0.6, 1.3) + 128 + rng.uniform(-40, 30)
    if rng.random() < 0.4:
        out *= rng.uniform(0.85, 1.15, 3)
    if rng.random() < 0.25:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.5, 3.0)))
    if rng.random() < 0.1:
        out = np.repeat(out.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.4:
        out += rng.normal(0, rng.uniform(1, 12), out.shape[:2])[..., None]
    worse = np.clip(out, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        coded = cv2.imencode(".jpg", worse, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 70))])[1]
        worse = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return worse


def clutter(rng: np.random.Generator, size: int) -> Image:
    """Colours, textures, shapes and writing without a face; some shapes are round and skin-coloured."""
    image = _texture(rng, size)
    for _ in range(int(rng.integers(0, 14))):
        x, y, r = (int(v) for v in rng.integers(0, size, 3))
        tint = rng.integers(0, 256, 3) if rng.random() < 0.5 else np.array((120, 150, 200)) * rng.uniform(0.3, 1.1)
        colour = tuple(int(c) for c in tint)
        axes = (max(2, r // 3), max(2, int(r // 3 * rng.uniform(0.6, 1.6))))
        kind = rng.random()
        if kind < 0.5:
            cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        elif kind < 0.75:
            cv2.rectangle(image, (x, y), (x + axes[0], y + axes[1]), colour, int(rng.choice((-1, 1, 3))))
        else:
            _write(rng, image, (x, y), colour)
    return np.asarray(image, np.uint8)


def _texture(rng: np.random.Generator, size: int) -> Image:
    """Noise of one grain, of all grains (as in nature), or almost none."""
    kind = rng.random()
    if kind < 0.4:
        cells = int(rng.integers(2, 24))
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        how = cv2.INTER_CUBIC if rng.random() < 0.6 else cv2.INTER_NEAREST
        return np.asarray(cv2.resize(noise, (size, size), interpolation=how), np.uint8)
    if kind < 0.8:
        total = np.zeros((size, size, 3), np.float32)
        for octave in range(1, 8):
            fine = rng.normal(0, 0.6**octave, (2**octave, 2**octave, 3)).astype(np.float32)
            total += cv2.resize(fine, (size, size), interpolation=cv2.INTER_CUBIC)
        lit = total * rng.uniform(20, 120) + rng.uniform(40, 215, 3)
        return np.clip(lit, 0, 255).astype(np.uint8)
    return np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)


def _write(rng: np.random.Generator, image: Image, at: tuple[int, int], colour: tuple[int, ...]) -> None:
    letters = "".join(chr(c) for c in rng.integers(33, 126, int(rng.integers(3, 24))))
    scale = float(np.exp(rng.uniform(np.log(0.25), np.log(3.0))))
    for line in range(int(rng.integers(1, 6))):
        place = (at[0] // 2, at[1] + int(line * 32 * scale))
        cv2.putText(image, letters, place, int(rng.integers(0, 5)), scale, colour, max(1, int(scale)), cv2.LINE_AA)
