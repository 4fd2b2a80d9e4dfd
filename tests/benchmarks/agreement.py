"""Whether two ways found the same: boxes of tracks, sync readings, texts."""

import difflib
import json
from collections.abc import Mapping, Sequence
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


def overlaps(known: Sequence[Measured], classic: Mapping[str, Tracks], store: Store) -> dict[str, Any]:
    """Intersection over union, frame by frame, over all tracks of the classic way."""
    found: list[float] = []
    worst: dict[str, float] = {}
    for one in known:
        mine = [value for track, _ in classic[one.video.url] for value in _overlaps(one, track, store)]
        found += mine
        if mine:
            worst[Path(one.video.url).name] = _mean([value >= 0.9 for value in mine])
    return {
        "agreement: tracks of the classic way": sum(len(tracks) for tracks in classic.values()),
        "agreement: share of frames with IoU >= 0.9": _mean([one >= 0.9 for one in found]),
        "agreement: share of frames with IoU >= 0.7": _mean([one >= 0.7 for one in found]),
        "agreement: mean IoU": _mean(found),
        "agreement: least share of frames with IoU >= 0.9, by video": dict(
            sorted(worst.items(), key=lambda item: item[1])[:6]
        ),
    }


def readings(known: Sequence[Measured], classic: Mapping[str, Tracks]) -> dict[str, Any]:
    """Offsets and confidences of the classic way's tracks and of our clips of them."""
    offsets: list[int] = []
    confidences: list[tuple[float, float]] = []
    for one in known:
        for track, (offset, confidence, _) in classic[one.video.url]:
            at = _clip_of(one, track)
            if at is not None and one.syncs is not None:
                offsets.append(abs(one.syncs.items[at].offset_frames + offset))
                confidences.append((one.syncs.items[at].confidence, confidence))
    both = np.array(confidences)
    clear = [offset for offset, (_, theirs) in zip(offsets, confidences, strict=True) if theirs >= 1]
    return {
        "agreement: tracks with a clip of ours": len(offsets),
        "agreement: share of clips with |offset difference| <= 1": _mean([one <= 1 for one in offsets]),
        "agreement: the same, of the clips with a confidence of 1 and more": _mean([one <= 1 for one in clear]),
        "agreement: clips with a confidence of 1 and more": len(clear),
        "agreement: correlation of confidences": float(np.corrcoef(both.T)[0, 1]) if len(both) > 2 else None,
    }


def texts(known: Sequence[Measured], classic: Mapping[str, Tracks], folder: Path) -> dict[str, Any]:
    """What was heard in the classic way's tracks, whose texts lie in `folder`, and in our clips of them."""
    pairs: list[tuple[str, str]] = []
    for one in known:
        for number, (track, _) in enumerate(classic[one.video.url]):
            at = _clip_of(one, track)
            if at is not None and one.speeches is not None:
                pairs.append((one.speeches.items[at].text, _text(folder, Path(one.video.url).stem, number)))
    likeness = [difflib.SequenceMatcher(None, mine, other).ratio() for mine, other in pairs]
    return {
        "agreement: share of equal texts": _mean([mine == other for mine, other in pairs]),
        "agreement: mean likeness of texts": _mean(likeness),
    }


def _mean(values: Sequence[float]) -> float:
    """0 where there is nothing: what was not compared does not agree."""
    return float(np.mean(values)) if values else 0.0


def _overlaps(one: Measured, track: dict[str, Any], store: Store) -> list[float]:
    """Of every frame of a track with the box there of that track of ours which fits best."""
    if one.seen is None:
        return [0.0] * len(track["frame"])
    blob = Path(store.at(one.seen.arrays.path))
    best: list[float] = [0.0] * len(track["frame"])
    for mine in one.seen.tracks:
        arrays = tracks_of(blob, mine.number)
        boxes = dict(zip(arrays["frame"].tolist(), arrays["box"][:, :4], strict=True))
        found = [_iou(boxes[f], b) if f in boxes else 0.0 for f, b in zip(track["frame"], track["bbox"], strict=True)]
        best = max(best, found, key=sum)
    return best


def _iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def _clip_of(one: Measured, track: dict[str, Any]) -> int | None:
    """Which clip of ours shares most seconds and the place with a track; None if none does."""
    if one.clips is None:
        return None
    start_s, end_s = track["frame"][0] / RATE_HZ, (track["frame"][-1] + 1) / RATE_HZ
    shared = [min(end_s, clip.end_s) - max(start_s, clip.start_s) for clip in one.clips.items]
    best = int(np.argmax(shared))
    return best if shared[best] > 0 else None


def _text(folder: Path, video: str, number: int) -> str:
    said = json.loads((folder / "texts" / f"{video}-{number:05d}.json").read_text(encoding="utf-8"))
    return " ".join(segment["text"].strip() for segment in said["segments"])
