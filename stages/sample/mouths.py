"""Material for a small SyncNet: mouths of rendered people that say espeak-ng speech, cropped as `stages.sync` crops.

Only what the crop can show is drawn, at the size the network reads, which makes a frame many times cheaper than the
whole picture. Everything follows from one seed.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import medfilt

from manifests.records import RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from manifests.sample.draw import View, paint
from manifests.sample.head import SHAPES
from manifests.sample.motion import Motion, talk
from manifests.sample.person import person
from manifests.sample.rig import Body, Layer, body, incidence
from manifests.sample.scene import background, light, scene
from stages.nets.syncnet import FACE_PX, MOUTH_LEFT_PX, MOUTH_PX, MOUTH_TOP_PX
from stages.sample.sentences import SENTENCES
from stages.sample.voice import speak

Floats = NDArray[np.float32]

STORED_PX = 72
"""Side of a stored mouth: the network's 56 px with a rim for random shifts and scales."""

SEEN_PX = MOUTH_PX // 2
_RIM_PX = (STORED_PX - SEEN_PX) // 2
_FACE_BOX_PX = FACE_PX / 2 / 1.4  # side of the face box in the face crop, at half scale
_SHAPES = ("jaw", "upper", "lower", "wide", "round", "press", "tuck")

MOUTH_SHAPES = len(_SHAPES)
"""Shapes of the mouth that a take tells."""


@dataclass(frozen=True)
class Take:
    """One person saying a few sentences, in step: pictures, sound, and what the mouth really does."""

    mouths: NDArray[np.uint8]  # (F, 72, 72) luma
    samples: NDArray[np.int16]  # (F * 640,) at 16 kHz
    shapes: Floats  # (F, 7): jaw, lips apart, wide, round, pressed, tucked; each of mean 0 and deviation 1


def take(seed: int, *, speakers: range, n_frames: int) -> Take:
    """Render a take in any language by one of `speakers`; four neighbouring seeds show one person. Deterministic."""
    rng = np.random.default_rng([seed, 0x5CC])
    samples, phonemes = _speech(rng, speakers, n_frames)
    motion = _motion(rng, samples, phonemes, n_frames, seed)
    return Take(_mouths(rng, body(person(seed // 4)), seed, motion), samples, _mouth_shapes(motion))


def _speech(
    rng: np.random.Generator, speakers: range, n_frames: int
) -> tuple[NDArray[np.int16], tuple[tuple[str, float, float], ...]]:
    """Sentences one after the other with pauses: samples (n_frames * 640,) and phonemes with their times."""
    language = str(rng.choice(list(SENTENCES)))
    speaker = int(rng.integers(speakers.start, speakers.stop))
    rate_wpm = int(rng.integers(120, 216))
    samples = np.zeros(n_frames * SAMPLES_PER_FRAME, np.int16)
    phonemes: list[tuple[str, float, float]] = []
    at = int(rng.uniform(0, 0.3) * SAMPLE_RATE_HZ)
    while at < len(samples):
        said = speak(str(rng.choice(SENTENCES[language])), language=language, speaker=speaker, rate_wpm=rate_wpm)
        part = said.samples[: len(samples) - at]
        samples[at : at + len(part)] = part
        start_s = at / SAMPLE_RATE_HZ
        phonemes += [(p.name, p.start_s + start_s, p.end_s + start_s) for p in said.phonemes]
        at += len(said.samples) + int(rng.exponential(0.15) * SAMPLE_RATE_HZ)
    return samples, tuple(phonemes)


def _motion(
    rng: np.random.Generator,
    samples: NDArray[np.int16],
    phonemes: tuple[tuple[str, float, float], ...],
    n_frames: int,
    seed: int,
) -> Motion:
    """The world's own movement, articulated in ways of its own: stronger or weaker shapes, lazier or crisper lips."""
    power = np.sqrt(np.mean(samples.reshape(n_frames, -1).astype(np.float64) ** 2, axis=1))
    loudness = (power / (np.percentile(power, 95) + 1)).clip(0, 1).astype(np.float32)
    motion = talk(
        phonemes,
        n_frames,
        seed,
        yaw_deg=float(rng.normal(0, 12)),
        pitch_deg=float(rng.normal(0, 5)),
        liveliness=float(rng.uniform(0.4, 1.8)),
        loudness=loudness if rng.random() < 0.5 else None,
    )
    shapes = motion.shapes.copy()
    for name in _SHAPES:
        shapes[:, SHAPES.index(name)] *= rng.uniform(0.65, 1.25)
    shapes[:, SHAPES.index("smile")] += rng.normal(0, 0.15)
    if rng.random() < 0.5:
        shapes = gaussian_filter1d(shapes, rng.uniform(0.3, 0.9), axis=0).astype(np.float32)
    return replace(motion, shapes=shapes)


def _mouth_shapes(motion: Motion) -> Floats:
    shapes = motion.shapes[:, [SHAPES.index(name) for name in _SHAPES]]
    unit: Floats = (shapes - shapes.mean(0)) / (shapes.std(0) + 0.02)
    return unit


def _mouths(rng: np.random.Generator, who: Body, seed: int, motion: Motion) -> NDArray[np.uint8]:
    coarse = _lower_front(who)
    where = scene(seed, 160, 160, head_px=100.0)
    lit_by = light(rng)
    views = _views(rng, _boxes(who, motion, where.distance), where.distance)
    backdrop = cv2.cvtColor(background(where), cv2.COLOR_RGB2GRAY).astype(np.float32)
    still = (coarse.layers[0].uv, coarse.layers[1].uv)
    mouths = np.empty((len(motion), STORED_PX, STORED_PX), np.uint8)
    for i, view in enumerate(views):
        at = coarse.placed(coarse.shapes_at(motion, i), motion, i)
        colour, alpha = paint(coarse, at, still, lit_by, _finer(view), shadows=False)
        luma = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
        luma, alpha = (cv2.resize(m, (STORED_PX, STORED_PX), interpolation=cv2.INTER_AREA) for m in (luma, alpha))
        picture = _behind(backdrop, view) * (1 - alpha) + luma
        mouths[i] = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return _coded(mouths, rng)


def _lower_front(who: Body) -> Body:
    """The body as a coarser mesh without what the mouth crop cannot show: an eighth of the vertices."""
    head = who.head
    rows, cols = head.rest.shape[:2]
    heights, slit = head.rest[:, cols // 2, 1], head.mouth_slit
    r = [i for i in range(rows) if heights[i] < 0.1 and (i in slit or abs(i - slit[0]) < 8 or i % 2 == 0)]
    c = [j for j in range(cols) if np.abs(head.rest[slit[0], j, 0]) < 0.95 and head.rest[slit[0], j, 2] > -0.2]
    c = c[::2]
    grid = np.arange(rows * cols).reshape(rows, cols)[np.ix_(r, c)]
    x, y, z = who.rest.T
    beyond = np.arange(len(who.rest)) >= rows * cols
    near = beyond & (y > -1.75) & (y < 0.05) & (z > 0.0) & (np.abs(x) < 0.95)
    near[who.tongue] = True
    kept = np.concatenate([grid.ravel(), np.flatnonzero(near)])
    place = np.full(len(who.rest), -1)
    place[kept] = np.arange(len(kept))
    hole = np.array([[head.hole[i:i2, j:j2].any() for j, j2 in pairwise(c)] for i, i2 in pairwise(r)])
    rest = who.rest[kept]
    first, second = who.layers
    face = _quads(place[grid], hole, rest)
    inside = first.triangles[near[first.triangles].all(1)]
    layers = (
        _thinned(first, np.concatenate([face, place[inside]]), kept),
        _thinned(second, place[second.triangles[near[second.triangles].all(1)]], kept),
    )
    tongue, combed = place[who.tongue], place[who.strands] >= 0
    new_slit = (r.index(slit[0]), r.index(slit[1]))
    shapes = head.shapes.reshape(len(head.shapes), rows * cols, 3)[:, grid.ravel()]
    return replace(
        who,
        head=replace(
            head,
            rest=head.rest[np.ix_(r, c)],
            shapes=shapes.reshape(len(shapes), -1),
            mouth_slit=new_slit,
            eye_slit=new_slit,
            lids=np.zeros(0, np.int32),
        ),
        rest=rest,
        follows=who.follows[kept],
        material=who.material[kept],
        open_=who.open_[kept],
        jaw=who.jaw[kept],
        layers=layers,
        tongue=slice(int(tongue[0]), int(tongue[-1]) + 1),
        normal_sum=incidence(np.concatenate([layer.triangles for layer in layers]), rest),
        strands=place[who.strands[combed]],
        tangents=who.tangents[combed],
        brightness=who.brightness[kept],
    )


def _quads(index: NDArray[np.intp], hole: NDArray[np.bool_], rest: Floats) -> NDArray[np.intp]:
    """Two triangles per quad that is no hole, counter-clockwise from the front."""
    a, b, c, d = (q[~hole] for q in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    found = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    p0, p1, p2 = (rest[found[:, k]] for k in range(3))
    return found if np.cross(p1 - p0, p2 - p0)[:, 2].sum() > 0 else found[:, ::-1]


def _thinned(layer: Layer, triangles: NDArray[np.intp], kept: NDArray[np.intp]) -> Layer:
    """What is left of a layer, with cells of twice the side: every one of them has a vertex to take its light from."""
    inside = np.flatnonzero((kept >= layer.first) & (kept < layer.last))
    if layer.first < 0 or not len(triangles):
        return replace(layer, first=-1, last=-1, triangles=np.zeros((0, 3), np.int32))
    own = kept[inside] - layer.first
    across, down = ((cells + 1) // 2 for cells in layer.cells)
    slots = (layer.slots[own] // layer.cells[0] // 2) * across + layer.slots[own] % layer.cells[0] // 2
    _, half, quarter = layer.atlas
    return replace(
        layer,
        first=int(inside[0]),
        last=int(inside[-1]) + 1,
        triangles=triangles.astype(np.int32),
        atlas=(half, quarter, cv2.resize(quarter, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
        uv=layer.uv[own] / 2 - 0.25,
        cells=(across, down),
        slots=slots.astype(np.int32),
    )


def _boxes(who: Body, motion: Motion, distance: float) -> Floats:
    """The face's box per frame (F, 4) in decimetres of the picture plane, y down: forehead to chin, cheek to cheek."""
    head = who.head
    rest = head.rest.reshape(-1, 3)
    seen = np.flatnonzero((rest[:, 1] < 0.52) & (rest[:, 1] > -1.2) & (rest[:, 2] > 0.22))[::7]
    moves = head.shapes.reshape(len(head.shapes), -1, 3)[:, seen].reshape(len(head.shapes), -1)
    points = (motion.shapes @ moves).reshape(len(motion), -1, 3) + rest[seen]
    follows = replace(who, follows=who.follows[seen])
    view = View(1.0, (0.0, 0.0), (1, 1), distance)
    flat = [view.project(follows.placed(at, motion, i))[:, :2] for i, at in enumerate(points)]
    return np.stack([np.concatenate([p.min(0), p.max(0)]) for p in flat]).astype(np.float32)


def _views(rng: np.random.Generator, boxes: Floats, distance: float) -> list[View]:
    """A window per frame onto the stored part of the face crop, for boxes as unsure as a detector's."""
    size = boxes[:, 2:] - boxes[:, :2]
    unsure = np.median(size[:, 1])
    half = size.max(1) / 2 * rng.uniform(0.92, 1.10)
    x = boxes[:, [0, 2]].mean(1) + rng.normal(0, 0.02) * unsure
    y = boxes[:, [1, 3]].mean(1) + rng.normal(0, 0.03) * unsure
    noise = rng.normal(0, rng.uniform(0, 0.012), (3, len(boxes))) * unsure
    half, x, y = (medfilt(values + n, 13) for values, n in zip((half, x, y), noise, strict=True))
    half = np.maximum(half, 0.3 * unsure)  # the filter takes what lies beyond the ends for nothing
    scale = _FACE_BOX_PX / (2 * half)  # pixels per decimetre
    top = (y - half) * scale + MOUTH_TOP_PX / 2 - _RIM_PX
    left = (x - 1.4 * half) * scale + MOUTH_LEFT_PX / 2 - _RIM_PX
    return [
        View(float(s), (-float(u), -float(v)), (STORED_PX, STORED_PX), distance)
        for s, u, v in zip(scale, left, top, strict=True)
    ]


def _finer(view: View) -> View:
    """Twice the resolution, against jagged edges."""
    return View(2 * view.px_per_dm, (2 * view.origin[0], 2 * view.origin[1]), (2 * STORED_PX,) * 2, view.distance)


def _behind(backdrop: Floats, view: View) -> Floats:
    """The part of a wall 4 dm wide, fixed to the room, that lies in the window."""
    zoom = view.px_per_dm * 4 / backdrop.shape[1]
    x, y = view.origin[0] - zoom * backdrop.shape[1] / 2, view.origin[1] - zoom * backdrop.shape[0] / 3
    warp = np.array([[zoom, 0, x], [0, zoom, y]])
    moved = cv2.warpAffine(
        backdrop, warp, (STORED_PX, STORED_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.float32)


def _coded(mouths: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """As they look after H.264 of some quality, at some size; one in four as rendered."""
    import av

    crf, side = int(rng.integers(18, 36)), int(rng.choice((32, 40, 48, 56, STORED_PX, STORED_PX)))
    if rng.random() < 0.25:
        return mouths
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width = encoder.height = side
    encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", RATE_HZ, Fraction(1, RATE_HZ)
    # Without the last, x264's macroblock tree reads past the edge of sizes that are no multiple of 16.
    encoder.options = {"preset": "veryfast", "crf": str(crf), "threads": "1", "x264-params": "cpu-independent=1"}
    decoder = av.CodecContext.create("h264", "r")
    packets = []
    for i, mouth in enumerate(mouths):
        small = mouth if side == STORED_PX else cv2.resize(mouth, (side, side), interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(small, format="gray").reformat(format="yuv420p")
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    frames = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    seen = [frame.to_ndarray(format="gray") for frame in frames]
    grown = [m if side == STORED_PX else cv2.resize(m, (STORED_PX, STORED_PX)) for m in seen]
    return np.stack(grown)
