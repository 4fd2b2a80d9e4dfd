"""Whether two ways found the same: boxes of tracks, sync readings, texts.

A video that ours rejects before it looks for tracks has nothing to compare: it is named, with its reason, and left out.
Readings and texts are compared where both ways judged the same footage: the same face over nearly the same frames.
"""

import difflib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.records import RATE_HZ
from manifests.store import Store
from stages.judge import Measured
from stages.watch import tracks_of

Reading = tuple[int, float, float]
Tracks = Sequence[tuple[dict[str, Any], Reading]]

SAME_FRAMES = 0.8
"""Shared over all frames of a track and a clip, from which on both are of the same footage."""

SAME_FACE = 0.5
"""Mean IoU of the boxes over the shared frames, from which on both are of the same face."""


def overlaps(known: Sequence[Measured], classic: Mapping[str, Tracks], store: Store) -> dict[str, Any]:
    """Intersection over union of boxes, frame by frame, over all tracks of the classic way in videos with tracks of
    ours: with the one track of ours that fits best, and with whichever lies there."""
    single: list[float] = []
    whichever: list[float] = []
    worst: dict[str, float] = {}
    rejected: dict[str, str] = {}
    for one in known:
        name, tracks = Path(one.video.url).name, classic[one.video.url]
        if one.seen is None:
            if tracks:
                rejected[name] = f"{len(tracks)} tracks; {one.rejected[1] if one.rejected else 'not settled'}"
            continue
        by_track = [_by_track(one, track, store) for track, _ in tracks]
        mine = [value for rows in by_track for value in max(rows, key=sum)]
        whichever += [max(values) for rows in by_track for values in zip(*rows, strict=True)]
        single += mine
        if mine:
            worst[name] = _mean([value >= 0.9 for value in mine])
    return {
        "agreement: tracks of the classic way": sum(len(tracks) for tracks in classic.values()),
        "agreement: of them, in videos that ours rejects unseen": rejected,
        "agreement: share of frames with IoU >= 0.9": _mean([one >= 0.9 for one in single]),
        "agreement: the same, whichever track of ours it is": _mean([one >= 0.9 for one in whichever]),
        "agreement: share of frames with IoU >= 0.7": _mean([one >= 0.7 for one in single]),
        "agreement: the same, whichever track of ours it is, 0.7": _mean([one >= 0.7 for one in whichever]),
        "agreement: mean IoU": _mean(single),
        "agreement: least share of frames with IoU >= 0.9, by video": dict(
            sorted(worst.items(), key=lambda item: item[1])[:6]
        ),
    }


def readings(known: Sequence[Measured], classic: Mapping[str, Tracks], store: Store) -> dict[str, Any]:
    """Offsets and confidences of the classic way's tracks and of our clips of them."""
    offsets: list[int] = []
    confidences: list[tuple[float, float]] = []
    apart: dict[str, str] = {}
    for one, number, at in _pairs(known, classic, store):
        if one.syncs is None:
            continue
        (_, (offset, confidence, _)), mine = classic[one.video.url][number], one.syncs.items[at]
        offsets.append(abs(mine.offset_frames + offset))
        confidences.append((mine.confidence, confidence))
        if offsets[-1] > 1:
            apart[f"{Path(one.video.url).name} {number}"] = f"{offsets[-1]} at {mine.confidence:.1f}, {confidence:.1f}"
    both = np.array(confidences)
    clear = [offset for offset, (_, theirs) in zip(offsets, confidences, strict=True) if theirs >= 1]
    return {
        "agreement: tracks whose footage a clip of ours is": len(offsets),
        "agreement: share of clips with |offset difference| <= 1": _mean([one <= 1 for one in offsets]),
        "agreement: the others, frames apart at confidences of ours, theirs": apart,
        "agreement: the same, of the clips with a confidence of 1 and more": _mean([one <= 1 for one in clear]),
        "agreement: clips with a confidence of 1 and more": len(clear),
        "agreement: correlation of confidences": float(np.corrcoef(both.T)[0, 1]) if len(both) > 2 else None,
    }


def texts(known: Sequence[Measured], classic: Mapping[str, Tracks], store: Store, folder: Path) -> dict[str, Any]:
    """What was heard in the classic way's tracks, whose texts lie in `folder`, and in our clips of them."""
    pairs = [
        (one.speeches.items[at].text, _said(folder / "texts" / f"{Path(one.video.url).stem}-{number:05d}.json"))
        for one, number, at in _pairs(known, classic, store)
        if one.speeches is not None
    ]
    likeness = [difflib.SequenceMatcher(None, mine, other).ratio() for mine, other in pairs]
    return {
        "agreement: share of equal texts": _mean([mine == other for mine, other in pairs]),
        "agreement: mean likeness of texts": _mean(likeness),
    }


def same_sound(
    known: Sequence[Measured], store: Store, folder: Path, hear: Callable[[list[Path], Path], object]
) -> dict[str, Any]:
    """What a command hears in the very sound of our clips; it writes `NAME.json` for every `NAME.wav`."""
    mine = {speech.key: speech.text for one in known if one.speeches for speech in one.speeches.items}
    sounds = {clip.key: clip.audio for one in known if one.clips for clip in one.clips.items if clip.key in mine}
    wavs = [Path(shutil.copy(store.at(sound.path), folder / f"{key}.wav")) for key, sound in sounds.items()]
    hear(wavs, folder)
    equal = [mine[key] == _said(folder / f"{key}.json") for key in sounds]
    return {
        "agreement: clips whose very sound both heard": len(equal),
        "agreement: share of equal texts, of the very sound of a clip": _mean(equal),
    }


def _mean(values: Sequence[float]) -> float:
    """0 where there is nothing: what was not compared does not agree."""
    return float(np.mean(values)) if values else 0.0


def _by_track(one: Measured, track: dict[str, Any], store: Store) -> list[list[float]]:
    """Of every frame of a track with the box there of each of our tracks; a row per track of ours."""
    if one.seen is None or not one.seen.tracks:
        return [[0.0] * len(track["frame"])]
    return [list(_overlap(one, mine.number, track, store).values()) for mine in one.seen.tracks]


def _overlap(one: Measured, number: int, track: dict[str, Any], store: Store) -> dict[int, float]:
    """IoU with our track of that number, by the frames of a track of the classic way."""
    assert one.seen is not None
    arrays = tracks_of(Path(store.at(one.seen.arrays.path)), number)
    boxes = dict(zip(arrays["frame"].tolist(), arrays["box"][:, :4], strict=True))
    frames = [int(frame) for frame in track["frame"]]
    return {f: _iou(boxes[f], b) if f in boxes else 0.0 for f, b in zip(frames, track["bbox"], strict=True)}


def _iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def _pairs(
    known: Sequence[Measured], classic: Mapping[str, Tracks], store: Store
) -> Iterator[tuple[Measured, int, int]]:
    """Videos with the number of a track of the classic way and that of the clip of ours of the same footage."""
    for one in known:
        for number, (track, _) in enumerate(classic[one.video.url]):
            at = _clip_of(one, track, store)
            if at is not None:
                yield one, number, at


def _clip_of(one: Measured, track: dict[str, Any], store: Store) -> int | None:
    """Which clip of ours shows the face of a track over nearly its frames; None if none does."""
    frames = {int(frame) for frame in track["frame"]}
    for at, clip in enumerate(one.clips.items if one.clips else ()):
        start = round(clip.start_s * RATE_HZ)
        mine = set(range(start, start + clip.n_frames))
        shared = frames & mine
        if len(shared) < SAME_FRAMES * len(frames | mine):
            continue
        overlap = _overlap(one, clip.track, track, store)
        if _mean([overlap[frame] for frame in shared]) >= SAME_FACE:
            return at
    return None


def _said(path: Path) -> str:
    """The text of a file as whisperx writes it."""
    said = json.loads(path.read_text(encoding="utf-8"))
    return " ".join(segment["text"].strip() for segment in said["segments"])
