"""Whether two ways found the same: boxes of tracks, sync readings, texts.

A video that ours rejects before it looks for tracks has nothing to compare: it is named, with its reason, and left out.
Readings and texts are compared where both ways judged the same footage: the same face over nearly the same frames.
"""

import difflib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.records import RATE_HZ
from manifests.store import Store
from stages.judge import Measured
from tests.tracks import tracks_of

Reading = tuple[int, float, float]
"""Offset in frames, positive where the picture is late, as syncnet-python has it; confidence; distance."""

Tracks = Sequence[tuple[dict[str, Any], Reading]]
"""As syncnet-python has them: `frame` and `bbox`, and what was read."""

SAME_FRAMES = 0.8
"""Shared over all frames of two faces, from which on both are of the same footage."""

SAME_FACE = 0.5
"""Mean IoU of the boxes over the shared frames, from which on both are of the same face."""


@dataclass(frozen=True)
class Face:
    """A face over frames, as one way has it: numbers (n,), boxes (n, 4); what was read and heard there, if it was."""

    frame: NDArray[np.int64]
    box: NDArray[np.float64]
    reading: Reading | None = None
    text: str | None = None


Faces = Mapping[str, Sequence[Face]]
"""By URL of the video."""


def our_tracks(known: Sequence[Measured], store: Store) -> Faces:
    """Our whole tracks, of the videos that ours looked at."""
    return {one.video.url: list(_by_number(one, store).values()) for one in known if one.seen}


def our_clips(known: Sequence[Measured], store: Store) -> Faces:
    """Our clips, with what was read and heard in them."""
    found: dict[str, list[Face]] = {}
    for one in known:
        tracks, clips = _by_number(one, store), one.clips.items if one.clips else ()
        for at, clip in enumerate(clips):
            whole, start = tracks[clip.track], round(clip.start_s * RATE_HZ)
            part = slice(*np.searchsorted(whole.frame, (start, start + clip.n_frames)))
            sync = one.syncs.items[at] if one.syncs else None
            reading = (-sync.offset_frames, sync.confidence, sync.distance) if sync else None
            text = one.speeches.items[at].text if one.speeches else None
            found.setdefault(one.video.url, []).append(Face(whole.frame[part], whole.box[part], reading, text))
    return found


def script_faces(tracks: Mapping[str, Tracks], folder: Path | None = None) -> Faces:
    """The classic way's tracks, with what was heard in them where its texts lie in `folder`."""
    found: dict[str, list[Face]] = {}
    for url, of_video in tracks.items():
        texts = [folder / "texts" / f"{Path(url).stem}-{n:05d}.json" if folder else None for n in range(len(of_video))]
        found[url] = [
            Face(np.asarray(track["frame"], np.int64), np.asarray(track["bbox"], np.float64), read, _said(text))
            for (track, read), text in zip(of_video, texts, strict=True)
        ]
    return found


def unseen(known: Sequence[Measured], theirs: Faces) -> dict[str, Any]:
    """Videos in which the classic way has faces and ours looked for none, with its reason."""
    rejected = {
        Path(one.video.url).name: f"{len(theirs[one.video.url])} tracks; {one.rejected[1] if one.rejected else 'open'}"
        for one in known
        if one.seen is None and theirs[one.video.url]
    }
    return {"agreement: tracks in videos that ours rejects unseen": rejected}


def overlaps(mine: Faces, theirs: Faces) -> dict[str, Any]:
    """Intersection over union of boxes, frame by frame, over all of `theirs` in videos of `mine`: with the one of mine
    that fits best, and with whichever lies there."""
    single: list[float] = []
    whichever: list[float] = []
    worst: dict[str, float] = {}
    for url, here in mine.items():
        of_video: list[float] = []
        for face in theirs[url]:
            rows = [list(_overlap(one, face).values()) for one in here] or [[0.0] * len(face.frame)]
            of_video += max(rows, key=sum)
            whichever += [max(values) for values in zip(*rows, strict=True)]
        single += of_video
        if of_video:
            worst[Path(url).name] = _mean([value >= 0.9 for value in of_video])
    return {
        "agreement: tracks of the classic way": sum(len(faces) for faces in theirs.values()),
        "agreement: share of frames with IoU >= 0.9": _mean([one >= 0.9 for one in single]),
        "agreement: the same, whichever track it is": _mean([one >= 0.9 for one in whichever]),
        "agreement: share of frames with IoU >= 0.7": _mean([one >= 0.7 for one in single]),
        "agreement: the same, whichever track it is, 0.7": _mean([one >= 0.7 for one in whichever]),
        "agreement: mean IoU": _mean(single),
        "agreement: least share of frames with IoU >= 0.9, by video": dict(
            sorted(worst.items(), key=lambda item: item[1])[:6]
        ),
    }


def readings(mine: Faces, theirs: Faces) -> dict[str, Any]:
    """Offsets and confidences over the same footage."""
    offsets: list[int] = []
    confidences: list[tuple[float, float]] = []
    apart: dict[str, str] = {}
    for name, one, other in _pairs(mine, theirs):
        if one.reading is None or other.reading is None:
            continue
        offsets.append(abs(one.reading[0] - other.reading[0]))
        confidences.append((one.reading[1], other.reading[1]))
        if offsets[-1] > 1:
            apart[name] = f"{offsets[-1]} at {one.reading[1]:.1f}, {other.reading[1]:.1f}"
    both = np.array(confidences)
    clear = [offset for offset, (_, confidence) in zip(offsets, confidences, strict=True) if confidence >= 1]
    return {
        "agreement: tracks whose footage both have": len(offsets),
        "agreement: share of them with |offset difference| <= 1": _mean([one <= 1 for one in offsets]),
        "agreement: the others, frames apart at the confidences of both": apart,
        "agreement: the same, of those with a confidence of 1 and more": _mean([one <= 1 for one in clear]),
        "agreement: those with a confidence of 1 and more": len(clear),
        "agreement: correlation of confidences": float(np.corrcoef(both.T)[0, 1]) if len(both) > 2 else None,
    }


def texts(mine: Faces, theirs: Faces) -> dict[str, Any]:
    """What was heard in the same footage."""
    heard = ((one.text, other.text) for _, one, other in _pairs(mine, theirs))
    pairs = [(one, other) for one, other in heard if one is not None and other is not None]
    likeness = [difflib.SequenceMatcher(None, one, other).ratio() for one, other in pairs]
    return {
        "agreement: share of equal texts": _mean([one == other for one, other in pairs]),
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
    heard = {key: _said(folder / f"{key}.json") for key in sounds}
    return {
        "agreement: clips whose very sound both heard": len(heard),
        "agreement: share of equal texts, of the very sound of a clip": _mean(
            [mine[key] == heard[key] for key in heard]
        ),
        "agreement: the others, heard by ours and by the command": {
            key: [mine[key], heard[key]] for key in heard if mine[key] != heard[key]
        },
    }


def _mean(values: Sequence[float]) -> float:
    """0 where there is nothing: what was not compared does not agree."""
    return float(np.mean(values)) if values else 0.0


def _by_number(one: Measured, store: Store) -> dict[int, Face]:
    """Tracks of a video by their number."""
    if one.seen is None or not one.seen.tracks:
        return {}
    path = Path(store.at(one.seen.arrays.path))
    arrays = {track.number: tracks_of(path, track.number) for track in one.seen.tracks}
    return {n: Face(of["frame"].astype(np.int64), of["box"][:, :4].astype(np.float64)) for n, of in arrays.items()}


def _overlap(mine: Face, theirs: Face) -> dict[int, float]:
    """IoU by the frames of `theirs`; 0 where mine has nothing."""
    boxes = dict(zip(mine.frame.tolist(), mine.box, strict=True))
    frames = theirs.frame.tolist()
    return {f: _iou(boxes[f], b) if f in boxes else 0.0 for f, b in zip(frames, theirs.box, strict=True)}


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def _pairs(mine: Faces, theirs: Faces) -> Iterator[tuple[str, Face, Face]]:
    """What both have of the same footage, with the name of the video and the number of the track of `theirs`."""
    for url, faces in theirs.items():
        for number, face in enumerate(faces):
            same = next((one for one in mine.get(url, ()) if _same_footage(one, face)), None)
            if same is not None:
                yield f"{Path(url).name} {number}", same, face


def _same_footage(mine: Face, theirs: Face) -> bool:
    """Whether both are of the same face over nearly the same frames."""
    here, there = set(mine.frame.tolist()), set(theirs.frame.tolist())
    shared = here & there
    if not shared or len(shared) < SAME_FRAMES * len(here | there):
        return False
    overlap = _overlap(mine, theirs)
    return _mean([overlap[frame] for frame in shared]) >= SAME_FACE


def _said(path: Path | None) -> str | None:
    """The text of a file as whisperx writes it."""
    if path is None:
        return None
    said = json.loads(path.read_text(encoding="utf-8"))
    return " ".join(segment["text"].strip() for segment in said["segments"])
