"""Which clips belong in the data set: a pure function of measurements and a policy, with receipts for all others.

Seconds of CPU for a whole data set, no pixels and no models: a new threshold is a new call.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from manifests.records import (
    RATE_HZ,
    Clip,
    Clips,
    Identities,
    Identity,
    Piece,
    Receipt,
    Seen,
    Source,
    Speech,
    Speeches,
    Sync,
    Syncs,
    Verdict,
    Video,
)
from stages.duplicates import Copy, copies
from stages.language import stated
from stages.origin import origin_of
from stages.policies import Policy
from stages.rivals import Contender, out_talked, worse_copies
from stages.split import Member, Placement, place
from stages.transcript import n_credits, n_letters, repetition

STAGES: dict[str, str] = {
    "fetch": "source", "watch": "seen", "clip": "clips",
    "sync": "syncs", "speech": "speeches", "identity": "identities",
}  # fmt: skip
"""Each stage with the field of `Measured` that it fills, in their order."""

NOT_CUT, NOT_HEARD = "not_cut", "not_heard"
UNMEASURED = "unmeasured"
"""The rule that keeps out what a stage has never measured, whose name is the value then. Of a clip that was measured:
the value where a limit is set and the reading is missing, as unknown is not good enough."""

JUDGING = 3
"""Raise it when equal measurements and an equal policy give other verdicts than before: the results of every store are
written anew then by its next `run`. It covers this file and what `judge` calls: duplicates, rivals, split, origin,
transcript. What samples and tables say of a verdict is `SCHEMA`'s."""


@dataclass(frozen=True)
class Measured:
    """All that is known of one video when its data set is judged. `None`: not measured (yet)."""

    video: Video
    source: Source | None = None
    seen: Seen | None = None
    clips: Clips | None = None
    syncs: Syncs | None = None
    speeches: Speeches | None = None
    identities: Identities | None = None
    rejected: tuple[str, str, Mapping[str, float | str]] | None = None  # stage, reason, what was measured
    failed: tuple[str, str, str] | None = None  # stage, "failed" or "quarantined", last line of the error
    postponed: tuple[str, str] | None = None  # stage, why its last attempt was put off

    @property
    def licence(self) -> str:
        """What the site states, else what the manifest states."""
        return origin_of(self.video, self.source).licence

    @property
    def channel(self) -> str:
        """Who published it: the site's own address of the uploader if known, else a name."""
        return origin_of(self.video, self.source).channel

    @property
    def lacks(self) -> str:
        """The first stage that gave nothing: the video waits for it, or ended there. "" if all did."""
        return next((stage for stage, fact in STAGES.items() if getattr(self, fact) is None), "")


@dataclass(frozen=True)
class Candidate:
    """One clip, or a piece that was spared the cut, with the records of every stage that looked at it."""

    measured: Measured
    clip: Piece
    sync: Sync | None
    speech: Speech | None
    identity: Identity | None

    @property
    def language(self) -> str:
        """The expected language where one is stated, else the one heard: it chooses limits by language."""
        return stated(self.measured.video.language) or (self.speech.language if self.speech else "")

    @property
    def spared(self) -> str:
        """What a cascade has spared it, as a rule's name, or nothing. See `stages.spare`."""
        if not isinstance(self.clip, Clip):
            return NOT_CUT
        return NOT_HEARD if self.speech is None and self.measured.speeches is not None else ""

    @property
    def lacks(self) -> str:
        """The stage that is still to measure it, or never will, or nothing: no policy knows what it would have read."""
        return "" if self.spared else self.measured.lacks

    @property
    def is_whole(self) -> bool:
        """Whether all was measured that a policy may ask for."""
        return not (self.spared or self.lacks)


@dataclass(frozen=True)
class Reading:
    """One rule applied to one clip. The margin is how far the value lies inside the limit; negative: broken."""

    rule: str
    value: float | str
    limit: float | str
    margin: float
    scale: float = 0.0  # the margin of a good clip: the limit itself, or the room between it and the best value

    @property
    def relative(self) -> float | None:
        """The margin in units of its scale, so that rules can be compared: a clip at -0.05 missed by 5 %. None where
        that has no meaning: a limit of zero, a limit in words, a limit that is the best value."""
        return self.margin / self.scale if self.scale else None


Value: TypeAlias = Callable[[Candidate, Policy], float | None]
"""What is compared with a limit; other limits of the policy may have a say in it."""


def candidates(measured: Iterable[Measured]) -> Iterator[Candidate]:
    """All clips of some videos, and the pieces that were not cut, with what belongs to each, in the order given."""
    for one in measured:
        if one.clips is None:
            continue
        syncs = {sync.key: sync for sync in one.syncs.items} if one.syncs else {}
        speeches = {speech.key: speech for speech in one.speeches.items} if one.speeches else {}
        identities = {identity.key: identity for identity in one.identities.items} if one.identities else {}
        for clip in sorted((*one.clips.items, *one.clips.spared), key=lambda clip: clip.number):
            yield Candidate(one, clip, syncs.get(clip.key), speeches.get(clip.key), identities.get(clip.key))


@dataclass(frozen=True)
class _Bound:
    """A rule of the form "value on the right side of a limit of the policy"."""

    rule: str
    limit: str  # the policy's field, whose prefix says on which side the value must lie
    value: Value
    best: float | None = None  # of a value that cannot be better: shares, cosines, scores

    def read(self, one: Candidate, policy: Policy) -> Reading | None:
        limit = policy.limit(self.limit, one.language)
        if limit is None:
            return None
        limit, value = float(limit), self.value(one, policy)
        if value is None or not math.isfinite(value):
            return Reading(self.rule, UNMEASURED, limit, -(abs(limit) or 1.0), abs(limit))
        margin = value - limit if self.limit.startswith("min_") else limit - value
        scale = abs(limit) if margin < 0 or self.best is None else abs(self.best - limit)
        return Reading(self.rule, float(value), limit, float(margin), scale)


def _of_sync(value: Callable[[Sync], float]) -> Value:
    return lambda one, _: None if one.sync is None else value(one.sync)


def _of_speech(value: Callable[[Speech], float | None]) -> Value:
    return lambda one, _: None if one.speech is None else value(one.speech)


def _drift_frames(one: Candidate, policy: Policy) -> float | None:
    """From end to end of the clip, at least: a slope is noise where the clip is short."""
    return None if one.sync is None else abs(one.sync.drift_least_frames_per_min) * one.clip.n_frames / RATE_HZ / 60


_CLEAR_SHARE = 0.5
"""[own] Of a clip's confidence, that a window must read to be believed: windows in pauses read noise. In the sample
world's kept clips the least of 316 windows reads 0.6, and none lies more than a frame from its clip."""


def _jump_frames(one: Candidate, policy: Policy) -> float | None:
    """How far the sound of some part of a clip lies from where that of the whole does. Only parts count that read half
    as clearly as the whole, and by themselves clearly enough to be kept."""
    if (sync := one.sync) is None:
        return None
    clear = max(policy.limit("min_confidence", one.language) or 0.0, _CLEAR_SHARE * sync.confidence)
    windows = zip(sync.curve_offset_frames, sync.curve_confidence, strict=True)
    return max((abs(at - sync.offset_frames) for at, confidence in windows if confidence >= clear), default=0)


def _effective_face_px(one: Candidate) -> float | None:
    return one.clip.effective_face_px if isinstance(one.clip, Clip) else None


def _face_cosine(one: Candidate, policy: Policy) -> float | None:
    return one.identity.spread if one.identity and one.identity.face else None


def _others_at_once(one: Candidate, policy: Policy) -> float | None:
    """Other faces inside the crop at once. One that would itself be `face_doubtful` is none: detectors see faces in
    curtains and ears, at scores below those of people (0.36 to 0.54 against 0.9 in the sample world)."""
    if one.measured.seen is None:
        return None
    least = policy.limit("min_detector_score", one.language) or 0.0
    numbers = set(one.clip.others_in_view)
    others = [track for track in one.measured.seen.tracks if track.number in numbers and track.score >= least]
    at_start = (sum(b.start_frame <= a.start_frame < b.end_frame for b in others) for a in others)
    return max(at_start, default=0)


def _voiced(rule: str, limit: str, value: Callable[[Speech], float | None]) -> _Bound:
    """Where there is no voice as much as is asked for: `no_speech` is about that."""

    def read(one: Candidate, policy: Policy) -> float | None:
        silent = one.speech is not None and not one.speech.speech_s
        return policy.limit(limit, one.language) if silent else _of_speech(value)(one, policy)

    return _Bound(rule, limit, read)


_VERDICTS = {"wrong_language": "other", "mixed_language": "mixed", "language_unsure": "unsure"}


@dataclass(frozen=True)
class _SpokenLanguage:
    """Spoken against expected language. Clips with no speech at all are `no_speech`, not a wrong language."""

    rule: str
    allowed: str  # the policy's field

    def read(self, one: Candidate, policy: Policy) -> Reading | None:
        speech = one.speech
        if getattr(policy, self.allowed) or speech is None or not speech.verdict:
            return None
        broken = speech.verdict == _VERDICTS[self.rule]
        margin = -speech.language_probability if broken else speech.language_probability
        return Reading(self.rule, speech.language, one.measured.video.language or "", margin)


@dataclass(frozen=True)
class _Licensed:
    rule: str = "licence"

    def read(self, one: Candidate, policy: Policy) -> Reading | None:
        if policy.licences is None:
            return None
        licence = one.measured.licence
        allowed = any(wanted.lower() in licence.lower() for wanted in policy.licences)
        return Reading(self.rule, licence or "none stated", " or ".join(policy.licences), 1.0 if allowed else -1.0)


RULES: tuple[_Bound | _SpokenLanguage | _Licensed, ...] = (
    _Bound("too_short", "min_duration_s", lambda one, _: one.clip.n_frames / RATE_HZ),
    _Bound("face_too_small", "min_face_px", lambda one, _: one.clip.face_px),
    _Bound("face_too_large", "max_face_share", lambda one, _: one.clip.face_share),
    _Bound("off_frame", "min_inside_share", lambda one, _: one.clip.inside_share, best=1.0),
    _Bound("face_lost", "min_detected_share", lambda one, _: one.clip.detected_share, best=1.0),
    _Bound("face_doubtful", "min_detector_score", lambda one, _: one.clip.score, best=1.0),
    _Bound("yaw", "max_yaw_deg", lambda one, _: one.clip.yaw_p95_deg),
    _Bound("pitch", "max_pitch_deg", lambda one, _: one.clip.pitch_deg),
    _Bound("roll", "max_roll_deg", lambda one, _: one.clip.roll_deg),
    _Bound("blurred", "min_sharpness", lambda one, _: one.clip.sharpness),
    _Bound("low_detail", "min_effective_face_px", lambda one, _: _effective_face_px(one)),
    _Bound("dark", "min_exposure", lambda one, _: one.clip.exposure),
    _Bound("bright", "max_exposure", lambda one, _: one.clip.exposure),
    _Bound("still_face", "min_motion", lambda one, _: one.clip.motion),
    _Bound("frozen", "max_still_s", lambda one, _: one.clip.still_s),
    _Bound("filled", "max_filled_share", lambda one, _: one.clip.filled_share),
    _Bound("several_faces", "max_other_faces", _others_at_once),
    _Bound("no_speech", "min_speech_share", _of_speech(lambda speech: speech.speech_share), best=1.0),
    _voiced("noisy", "min_snr_db", lambda said: said.snr_db),
    _voiced("second_voice", "max_other_voice_share", lambda said: said.other_voice_share),
    _SpokenLanguage("wrong_language", "allow_other_language"),
    _SpokenLanguage("mixed_language", "allow_mixed_language"),
    _SpokenLanguage("language_unsure", "allow_unsure_language"),
    _Bound("garbled", "min_avg_logprob", _of_speech(lambda speech: speech.avg_logprob), best=0.0),
    _Bound("repetitive", "max_repetition", _of_speech(lambda speech: repetition(speech.text))),
    _voiced("too_few_words", "min_letters_per_voice_s", lambda said: n_letters(said.text) / said.speech_s),
    _Bound("credits", "max_credits", _of_speech(lambda speech: n_credits(speech.text))),
    _Bound("low_sync", "min_confidence", _of_sync(lambda sync: sync.confidence)),
    _Bound("far_sync", "max_distance", _of_sync(lambda sync: sync.distance)),
    _Bound("offset", "max_offset_frames", _of_sync(lambda sync: abs(sync.offset_frames))),
    _Bound("sync_jump", "max_jump_frames", _jump_frames),
    _Bound("drift", "max_drift_frames", _drift_frames),
    _Bound("text_in_view", "max_text_share", lambda one, _: one.identity.text_share if one.identity else None),
    _Bound("unsteady_identity", "min_identity_cosine", _face_cosine, best=1.0),
    _Licensed(),
)
"""Every rule that looks at one clip alone, in the order in which receipts list them. After them come `not_the_speaker`,
which compares the clips of one video, `unmeasured`, and `duplicate`, which compares the clips that are left."""


def readings(one: Candidate, policy: Policy) -> tuple[Reading, ...]:
    """Every rule of the policy applied to one clip alone, kept or broken, in order.

    Of a clip that was spared something, or waits, only what is known: the rest was not looked for.
    """
    found = (reading for rule in RULES if (reading := rule.read(one, policy)) is not None)
    return tuple(reading for reading in found if one.is_whole or reading.value != UNMEASURED)


def tightest(one: Candidate, policy: Policy) -> tuple[str, float] | None:
    """The rule that a clip keeps or breaks most narrowly, with its relative margin; the broken ones come first."""
    found = [(reading.rule, margin) for reading in readings(one, policy) if (margin := reading.relative) is not None]
    return min(found, key=lambda known: (known[1], known[0]), default=None)


def judge(measured: Iterable[Measured], policy: Policy) -> tuple[Verdict, ...]:
    """A verdict for every clip, sorted by key, the same for any order of the videos.

    A dropped clip has a receipt for every rule that it is known to break, and one that says which stage never measured
    it, or else what was spared it. So a clip without a transcript or a face is none of the set under any policy: it
    could be a copy of one that is, or show a person of another split. Of near-duplicates that break no other rule the
    best stays. A kept clip has its person, group and split.
    """
    ordered = sorted(measured, key=lambda one: one.video.id)
    clips = sorted(candidates(ordered), key=lambda one: one.clip.key)
    speakers = out_talked(map(_contender, clips)) if policy.one_speaker else {}
    broken = {one.clip.key: _broken(one, policy, speakers.get(one.clip.key)) for one in clips}
    sound = [one for one in clips if not broken[one.clip.key]]
    copied = copies(
        {one.clip.key: one.identity for one in sound if one.identity},
        max_picture_distance=policy.max_picture_distance,
        max_sound_distance=policy.max_sound_distance,
    )
    for key, receipt in worse_copies([*map(_contender, sound)], copied, policy.max_picture_distance or 0.0):
        broken[key] = (receipt,)
    placed = _placements(sound, copied, {one.clip.key for one in sound if not broken[one.clip.key]}, policy)
    return tuple(_verdict(one, broken[one.clip.key], placed.get(one.clip.key), policy) for one in clips)


def _broken(one: Candidate, policy: Policy, rival: Receipt | None) -> tuple[Receipt, ...]:
    found = (reading for reading in readings(one, policy) if reading.margin < 0)
    receipts = [Receipt(reading.rule, reading.value, reading.limit, reading.margin) for reading in found]
    if rival:
        receipts.append(rival)
    if one.lacks:
        receipts.append(Receipt(UNMEASURED, one.lacks, "measured", -1.0))
    if one.spared and not receipts:  # this policy might have kept it
        receipts.append(Receipt(one.spared, UNMEASURED, "measured", -1.0))
    return tuple(receipts)


def _contender(one: Candidate) -> Contender:
    return Contender(
        key=one.clip.key,
        video=one.measured.video.id,
        track=one.clip.track,
        start_s=one.clip.start_s,
        end_s=one.clip.end_s,
        n_frames=one.clip.n_frames,
        confidence=one.sync.confidence if one.sync else None,
        effective_face_px=_effective_face_px(one) or 0.0,
        sharpness=one.clip.sharpness,
    )


def _placements(sound: list[Candidate], copied: Iterable[Copy], kept: set[str], policy: Policy) -> dict[str, Placement]:
    members = [
        Member(
            key=one.clip.key,
            video=one.measured.video.id,
            channel=one.measured.channel,
            track=one.clip.track,
            face=one.identity.face if one.identity else (),
            frames=one.clip.n_frames if one.clip.key in kept else 0,
            url=origin_of(one.measured.video, one.measured.source).url,
        )
        for one in sound
    ]
    return place(
        members,
        [(copy.first, copy.second) for copy in copied],
        same_person_cosine=policy.same_person_cosine,
        val_share=policy.val_share,
        test_share=policy.test_share,
    )


def _verdict(one: Candidate, broken: tuple[Receipt, ...], placed: Placement | None, policy: Policy) -> Verdict:
    kept = not broken
    return Verdict(
        key=one.clip.key,
        video=one.measured.video.id,
        kept=kept,
        policy=policy.name,
        receipts=broken,
        person=placed.person if placed else "",
        group=placed.group if placed else "",
        split=placed.split if placed and kept else "",
        shift_frames=one.sync.offset_frames if policy.shift_audio and kept and one.sync else 0,
    )
