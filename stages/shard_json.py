"""A sample's json: all that is known of a clip, each value of one type in every sample, null where it is not known.

So Arrow, and what reads with it, makes a table of any samples.
"""

from typing import Any

from manifests.records import RATE_HZ, Clip, FaceMeasures, Verdict, Word
from stages.judge import Candidate
from stages.language import current
from stages.origin import origin_of, span_s

SCHEMA = 5
"""Raised when the meaning or the set of a sample's members changes; in every sample's json.

2: `crop.npy`, the source's size, which network made `id.npy`; a word is an object, it was a list of text and numbers;
`quality` is of the clip's own frames, it was of its whole track, and has `filled_share`.
3: no `policy`, which the index, the card and `clips.parquet` say: with it, one more limit would write every tar anew.
4: `snr_db`.
5: `other_voice_share`; `text_share` in `quality`.
"""


def told_language(one: Candidate) -> str:
    """The language heard, the expected one where none was, "" where none is stated: in json, index and table alike."""
    return (one.speech.language if one.speech else "") or current(one.measured.video.language or "")


def describe(one: Candidate, verdict: Verdict, *, n_clips: int, follows: bool) -> dict[str, Any]:
    """The json member. Times in seconds of what lies at `url`, except the words', which are inside the shipped sound.

    Words have times from a forced aligner where it is `aligned`, else the recogniser's own. `sync_offset` is what
    remains in the shipped sound, in frames, positive when the audio is late. `source_width_px` and `source_height_px`
    are of the picture that `crop.npy` lies in: upright, in square pixels. `hashes` holds perceptual hashes, and the
    digests of the clip's bytes before any shift of its sound.
    """
    clip, video, source = one.clip, one.measured.video, one.measured.source
    assert isinstance(clip, Clip), "what is kept was cut"
    sync, speech, identity = one.sync, one.speech, one.identity
    shift_frames = verdict.shift_frames
    origin, (start_s, end_s) = origin_of(video, source), span_s(clip, source)
    return {
        "schema": SCHEMA,
        "video_id": video.id,
        "clip_no": clip.number,
        "n_clips_in_video": n_clips,
        "fps": RATE_HZ,
        "n_frames": clip.n_frames,
        "size_px": clip.size_px,
        "source_width_px": source.video.width_px if source else None,
        "source_height_px": source.video.height_px if source else None,
        "start_sec": start_s,
        "end_sec": end_s,
        "contiguous_with_prev": follows,
        "track": clip.track,
        "speaker_id": verdict.person,
        "identity_source": one.measured.identities.model if one.measured.identities else "",
        "split": verdict.split,
        "language": told_language(one),
        "language_expected": current(video.language or ""),
        "language_probability": speech.language_probability if speech else None,
        "language_verdict": speech.verdict if speech else "",
        "transcript": speech.text if speech else "",
        "transcript_source": one.measured.speeches.model if one.measured.speeches else "",
        "words": [_word(word, clip, shift_frames) for word in speech.words] if speech else [],
        "aligned": speech.aligned if speech else False,
        "speech_share": speech.speech_share if speech else None,
        "snr_db": speech.snr_db if speech else None,
        "other_voice_share": speech.other_voice_share if speech else None,
        "sync_conf": sync.confidence if sync else None,
        "sync_offset": sync.offset_frames - shift_frames if sync else None,
        "sync_distance": sync.distance if sync else None,
        "sync_source": one.measured.syncs.model if one.measured.syncs else "",
        "audio_shift_frames": -shift_frames,
        "quality": _quality(one, clip),
        "licence": origin.licence,
        "uploader": origin.uploader,
        "uploader_url": source.uploader_url if source else "",
        "url": origin.url,
        "title": origin.title,
        "hashes": {
            "picture": identity.picture_hash if identity else "",
            "sound": identity.sound_hash if identity else "",
            "mp4": clip.video.sha256,
            "wav": clip.audio.sha256,
        },
    }


def _quality(one: Candidate, clip: Clip) -> dict[str, float | None]:
    return {
        **{name: getattr(clip, name) for name in FaceMeasures.__annotations__},
        "still_s": clip.still_s,
        "filled_share": clip.filled_share,
        "effective_face_px": clip.effective_face_px,
        "faces_in_view": len(clip.others_in_view),
        "identity_cosine": one.identity.spread if one.identity and one.identity.face else None,
        "text_share": one.identity.text_share if one.identity else None,
    }


def _word(word: Word, clip: Clip, shift_frames: int) -> dict[str, str | float | None]:
    """A word as the shipped sound has it; no times where the shift has cut it off."""
    start_s, end_s = word.start_s, word.end_s
    moved_s, last_s = shift_frames / RATE_HZ, clip.n_frames / RATE_HZ
    if shift_frames and start_s is not None and end_s is not None:
        if end_s <= moved_s or start_s >= last_s + moved_s:
            start_s = end_s = None
        else:
            start_s, end_s = (round(min(max(at_s - moved_s, 0.0), last_s), 3) for at_s in (start_s, end_s))
    return {"word": word.text, "start_sec": start_s, "end_sec": end_s, "score": word.score}
