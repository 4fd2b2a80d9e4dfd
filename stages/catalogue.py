"""The catalogue: `clips.parquet`, one row per clip, kept or dropped, and `videos.parquet`, one per video."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import parquet
from manifests.codec import from_plain, to_plain
from manifests.records import RATE_HZ, Clip, FaceMeasures, Verdict
from manifests.store import Store
from stages.judge import Candidate, Measured, candidates, tightest
from stages.language import current
from stages.origin import origin_of, span_s
from stages.policies import Policy
from stages.shard_json import told_language

CLIPS = "clips.parquet"
VIDEOS = "videos.parquet"

# A receipt's value and limit may be numbers or words: both are kept as text, the margin as a number.
_RECEIPT = pa.struct([("rule", pa.string()), ("value", pa.string()), ("limit", pa.string()), ("margin", pa.float64())])

_CLIPS_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "video": pa.string(),
    "name": pa.string(),  # of the video, in its list
    "number": pa.int32(),
    "kept": pa.bool_(),
    "split": pa.string(),
    "person": pa.string(),
    "group": pa.string(),
    "policy": pa.string(),
    "first_broken_rule": pa.string(),  # null: kept
    "receipts": pa.list_(_RECEIPT),
    "tightest_rule": pa.string(),  # of the rules it keeps or breaks, the one nearest to its limit
    "tightest_margin": pa.float64(),  # in units of the limit
    "language_expected": pa.string(),
    "language": pa.string(),  # heard, the expected one where nothing was
    "language_probability": pa.float64(),
    "language_verdict": pa.string(),
    "start_s": pa.float64(),  # in what lies at `url`
    "end_s": pa.float64(),
    "duration_s": pa.float64(),
    "n_frames": pa.int32(),
    "size_px": pa.int32(),
    "track": pa.int32(),
    "faces_in_view": pa.int32(),
    "still_s": pa.float64(),
    "effective_face_px": pa.float64(),
    "filled_share": pa.float64(),
    **dict.fromkeys(FaceMeasures.__annotations__, pa.float64()),
    "sync_confidence": pa.float64(),
    "sync_distance": pa.float64(),
    "sync_offset_frames": pa.int32(),
    "audio_shift_frames": pa.int32(),  # of the sound as shipped, negative: earlier; the offset is of the clip as cut
    "sync_drift_frames_per_min": pa.float64(),
    "sync_drift_least_frames_per_min": pa.float64(),
    "sync_model": pa.string(),
    "speech_share": pa.float64(),
    "snr_db": pa.float64(),
    "other_voice_share": pa.float64(),
    "transcript": pa.string(),
    "avg_logprob": pa.float64(),
    "aligned": pa.bool_(),  # whether a forced aligner gave the word times; else the recogniser itself
    "speech_model": pa.string(),
    "identity_cosine": pa.float64(),
    "identity_model": pa.string(),
    "text_share": pa.float64(),
    "picture_hash": pa.string(),
    "sound_hash": pa.string(),
    "url": pa.string(),
    "title": pa.string(),
    "channel": pa.string(),
    "uploader": pa.string(),
    "licence": pa.string(),
    "mp4": pa.string(),  # paths below the store's root
    "wav": pa.string(),
    "arrays": pa.string(),
}
_CLIPS = pa.schema(_CLIPS_COLUMNS)

_VIDEOS_COLUMNS: dict[str, pa.DataType] = {
    "video": pa.string(),
    "name": pa.string(),  # in its list
    "url": pa.string(),
    "start_s": pa.float64(),  # the part of it that was asked for
    "end_s": pa.float64(),
    "language_expected": pa.string(),
    "title": pa.string(),
    "channel": pa.string(),
    "uploader": pa.string(),
    "licence": pa.string(),
    "status": pa.string(),  # "measured", "rejected", "failed", "quarantined" or "waiting"
    "stage": pa.string(),
    "reason": pa.string(),
    "measured": pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())])),
    "duration_s": pa.float64(),
    "width_px": pa.int32(),
    "height_px": pa.int32(),
    "rate_hz": pa.float64(),
    "source_sha256": pa.string(),  # of the file in the store
    "upload_date": pa.string(),  # as the site says it
    "n_tracks": pa.int32(),
    "n_clips": pa.int32(),
    "n_kept": pa.int32(),
    "kept_s": pa.float64(),
}
_VIDEOS = pa.schema(_VIDEOS_COLUMNS)


def write_catalogue(store: Store, measured: Iterable[Measured], verdicts: Iterable[Verdict], policy: Policy) -> None:
    """Write both tables whole, rows sorted by key. `pandas.read_parquet` reads them."""
    measured = sorted(measured, key=lambda one: one.video.id)
    by_key = {verdict.key: verdict for verdict in verdicts}
    clips = sorted(candidates(measured), key=lambda one: one.clip.key)
    _put(store, CLIPS, [_clip(one, by_key[one.clip.key], policy) for one in clips], _CLIPS)
    _put(store, VIDEOS, [_video(one, by_key) for one in measured], _VIDEOS)


def read_catalogue(store: Store, name: str = CLIPS, columns: list[str] | None = None) -> pa.Table:
    """One of the two tables as a `pyarrow.Table`, or some of its columns. Raises `FileNotFoundError` if nothing was
    judged yet, or a power cut left the file empty, `ValueError` where it is damaged."""
    if not (data := store.get(name)):
        raise FileNotFoundError(f"{store.at(name)} is empty")
    try:
        return parquet.read(data, columns)
    except ValueError as error:
        raise ValueError(f"{store.at(name)} is damaged ({error}); `judge` writes it anew once it is deleted") from None


def read_verdicts(store: Store, video: str) -> tuple[Verdict, ...]:
    """The verdicts on one video as the table of clips has them, sorted by key: values and limits of receipts as text.
    Raises `FileNotFoundError` if nothing was judged yet."""
    columns = ["key", "video", "kept", "policy", "receipts", "person", "group", "split"]
    rows = read_catalogue(store, CLIPS, columns).filter(pc.field("video") == video).to_pylist()
    return tuple(from_plain({name: v for name, v in row.items() if v is not None}, Verdict) for row in rows)


def keep_rows(store: Store, name: str, condition: pc.Expression) -> None:
    """Write one of the tables anew with the rows that meet a condition; nothing happens if there is none."""
    with contextlib.suppress(FileNotFoundError):
        store.put(name, parquet.write(read_catalogue(store, name).filter(condition)))


def status(one: Measured) -> tuple[str, str, str]:
    """Where a video stands: status, and for what has ended before clips were measured, the stage and the reason."""
    if one.rejected is not None:
        return "rejected", one.rejected[0], one.rejected[1]
    if one.failed is not None:
        return one.failed[1], one.failed[0], one.failed[2]
    return ("waiting" if one.lacks else "measured"), "", ""


def _put(store: Store, path: str, rows: Sequence[Mapping[str, Any]], schema: Any) -> None:
    store.put(path, parquet.write(pa.Table.from_pylist(list(rows), schema=schema)))


def _about(one: Measured) -> dict[str, Any]:
    return {
        "video": one.video.id,
        "name": one.video.name,
        "language_expected": current(one.video.language) if one.video.language else None,
        **vars(origin_of(one.video, one.source)),
    }


def _clip(one: Candidate, verdict: Verdict, policy: Policy) -> dict[str, Any]:
    clip, sync, speech, identity = one.clip, one.sync, one.speech, one.identity
    narrowest = tightest(one, policy)
    start_s, end_s = span_s(clip, one.measured.source)
    row = {
        **_about(one.measured),
        **to_plain(clip),
        "language": told_language(one) or None,
        "start_s": start_s,
        "end_s": end_s,
        "kept": verdict.kept,
        "split": verdict.split or None,
        "person": verdict.person or None,
        "group": verdict.group or None,
        "policy": verdict.policy,
        "first_broken_rule": verdict.receipts[0].rule if verdict.receipts else None,
        "receipts": [
            {"rule": one.rule, "value": text(one.value), "limit": text(one.limit), "margin": one.margin}
            for one in verdict.receipts
        ],
        "tightest_rule": narrowest and narrowest[0],
        "tightest_margin": narrowest and narrowest[1],
        "faces_in_view": len(clip.others_in_view),
        "duration_s": clip.n_frames / RATE_HZ,
        "audio_shift_frames": -verdict.shift_frames if verdict.kept else None,
        "video": one.measured.video.id,
    }
    if isinstance(clip, Clip):
        row |= {"mp4": clip.video.path, "wav": clip.audio.path, "arrays": clip.arrays.path}
    if sync is not None:
        row |= {
            "sync_confidence": sync.confidence,
            "sync_distance": sync.distance,
            "sync_offset_frames": sync.offset_frames,
            "sync_drift_frames_per_min": sync.drift_frames_per_min,
            "sync_drift_least_frames_per_min": sync.drift_least_frames_per_min,
            "sync_model": one.measured.syncs.model if one.measured.syncs else None,
        }
    if speech is not None:
        row |= {
            "language_probability": speech.language_probability,
            "language_verdict": speech.verdict,
            "speech_share": speech.speech_share,
            "snr_db": speech.snr_db,
            "other_voice_share": speech.other_voice_share,
            "transcript": speech.text,
            "avg_logprob": speech.avg_logprob,
            "aligned": speech.aligned,
            "speech_model": one.measured.speeches.model if one.measured.speeches else None,
        }
    if identity is not None:
        row |= {
            "identity_cosine": identity.spread if identity.face else None,
            "identity_model": one.measured.identities.model if one.measured.identities else None,
            "text_share": identity.text_share,
            "picture_hash": identity.picture_hash,
            "sound_hash": identity.sound_hash,
        }
    return {name: row.get(name) for name in _CLIPS.names}


def _video(one: Measured, by_key: Mapping[str, Verdict]) -> dict[str, Any]:
    state, stage, reason = status(one)
    source = one.source
    kept = [clip for clip in (one.clips.items if one.clips else ()) if by_key[clip.key].kept]
    numbers = one.rejected[2] if one.rejected else {}
    return {
        **_about(one),
        "start_s": one.video.start_s,
        "end_s": one.video.end_s,
        "status": state,
        "stage": stage or None,
        "reason": reason or None,
        "measured": [{"name": name, "value": text(value)} for name, value in numbers.items()],
        "duration_s": source.duration_s if source else one.video.duration_s,
        "width_px": source.video.width_px if source else None,
        "height_px": source.video.height_px if source else None,
        "rate_hz": source.video.rate_hz if source else None,
        "source_sha256": source.file.sha256 if source else None,
        "upload_date": source.upload_date if source else None,
        "n_tracks": len(one.seen.tracks) if one.seen else None,
        "n_clips": len(one.clips.items) + len(one.clips.spared) if one.clips else None,
        "n_kept": len(kept),
        "kept_s": sum(clip.n_frames for clip in kept) / RATE_HZ,
    }


def text(value: float | str) -> str:
    """A measured value or a limit as the tables have it."""
    return value if isinstance(value, str) else f"{value:g}"
