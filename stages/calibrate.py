"""How far a limit on sync confidence can be trusted, language by language: from the clips themselves, without labels.

Where lips and voice do not belong together, the offset that SyncNet finds is a guess, and as likely to be plainly wrong
as to look right. So the clips whose offset is plainly wrong tell how many wrong ones hide, at any confidence, among
those whose offset looks right: the target-decoy estimate of false discoveries (Elias and Gygi, Nature Methods 2007).
What the limit drops though it is in sync follows by subtraction.

Tried on 2,450 pairs of a sample clip's lips and another's voice: 275 look right, 209 are estimated; of the 296 that
read a confidence of 1 and more, which matter at a limit, 22 and 28. It cannot tell a good dub from speech, and takes
sound that is late by more than 9 frames for none at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.judge import NOT_HEARD, Candidate, Measured, candidates, judge
from stages.language import by_language, stated
from stages.policies import Policy

FAR_FRAMES = 9
"""[own] Beyond it an offset is plainly wrong: recordings are late by a few frames, and LatentSync corrects up to six.
The last offset on either side does not count: still faces and silence end there, far more often than on any other."""

_SYNC_LIMITS = ("min_confidence", "max_distance", "max_offset_frames", "max_jump_frames", "max_drift_frames")
_LANGUAGE_RULES = frozenset({"wrong_language", "mixed_language", "language_unsure"})
_TEXT_RULES = frozenset({"garbled", "repetitive", "too_few_words", "credits"})
SPEECH_RULES = frozenset({"no_speech", "noisy", "second_voice", NOT_HEARD}) | _LANGUAGE_RULES | _TEXT_RULES

_LEAST_RIGHT, _LEAST_FAR = 30, 5
"""[own] Clips that look right, and plainly wrong ones, without which no limit is proposed: what wrong ones read would
be a guess, and where there are none any limit would do."""

_DRAWS = 400
_RANGE = (0.05, 0.95)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trust:
    """What a limit on the confidence does to the clips of one language ("": of all) that break no rule but of sync.

    Shares are estimates; None where nothing is there to estimate them from.
    """

    language: str
    videos: int
    clips: int
    limit: float | None  # `min_confidence` in force; None: none, or several of several languages
    in_sync: float  # estimated number of clips in sync, whatever their confidence
    lost: float | None  # share of them that the limit drops
    lost_range: tuple[float, float] | None  # of nine in ten draws of the videos
    wrong: float | None  # share of what the limit lets pass that is not in sync
    few: bool  # too few clips to propose a limit
    proposed: float | None  # the least limit that lets pass no larger share than was asked for; None: few, or none does
    lost_then: float | None


@dataclass(frozen=True)
class _Clips:
    """Clips of one language: confidences, how often each counts, whether its offset looks right or is plainly wrong."""

    confidence: Floats
    weight: Floats
    near: NDArray[np.bool_]
    far: NDArray[np.bool_]
    hidden: float  # wrong clips that look right, for one that is plainly wrong

    def right(self, limit: float) -> float:
        """Estimated clips in sync with a confidence of `limit` and more."""
        return max(self._count(self.near, limit) - self.hidden * self._count(self.far, limit), 0.0)

    def wrong(self, limit: float, more: float = 0.0) -> float | None:
        """Share of what passes that is not in sync, with so many clips `more` that are plainly wrong."""
        passing = self._count(self.near, limit)
        return min(self.hidden * (self._count(self.far, limit) + more) / passing, 1.0) if passing else None

    def lost(self, limit: float) -> float | None:
        all_right = self.right(-np.inf)
        return min(max(1 - self.right(limit) / all_right, 0.0), 1.0) if all_right else None

    def _count(self, which: NDArray[np.bool_], limit: float) -> float:
        return float(self.weight[which & (self.confidence >= limit)].sum())


def calibrate(measured: Iterable[Measured], policy: Policy, *, wrong: float = 0.02) -> tuple[Trust, ...]:
    """One `Trust` per language, that with most clips first, and one of all at the end.

    Looked at are clips that break none of the policy's other rules, by the language that chooses their limits. Where a
    cascade has spared some the hearing, for what their lips say, nothing that is heard rules any out: those out of sync
    would stay for being unheard. `wrong` is the share of clips not in sync that a proposed limit may let pass; as is
    usual for such estimates one plainly wrong clip more than was seen is assumed. Raises `ValueError` if `wrong` lies
    not between 0 and 1, or if too few offsets were tried (`sync.reach`) for any to be plainly wrong.
    """
    if not 0 < wrong < 1:
        raise ValueError(f"{wrong:g} is no share between 0 and 1")
    known = list(measured)
    read = [one for one in candidates(known) if one.sync and one.sync.distances]
    all_heard = not any(one.spared for one in read)
    aside = frozenset[str]() if all_heard else SPEECH_RULES
    verdicts = judge(known, _without_sync(policy))
    besides = {one.key for one in verdicts if not aside.issuperset(r.rule for r in one.receipts)}
    found = by_language(
        (one for one in read if one.clip.key not in besides),
        lambda one: one.language if all_heard else stated(one.measured.video.language),
    )
    trusts = [_trust(language, clips, policy, wrong) for language, clips in found.items()]
    everything = [clip for clips in found.values() for clip in clips]
    return (*trusts, _trust("", everything, policy, wrong)) if len(trusts) > 1 else tuple(trusts)


def _without_sync(policy: Policy) -> Policy:
    """The same without its limits on sync: of copies, too, that break one, the best alone is looked at then."""
    others = tuple(one for one in policy.by_language if one.limit not in _SYNC_LIMITS)
    lifted: dict[str, Any] = dict.fromkeys(_SYNC_LIMITS)
    return replace(policy, by_language=others, **lifted)


def _trust(language: str, found: Sequence[Candidate], policy: Policy, wrong: float) -> Trust:
    limits = {policy.limit("min_confidence", one.language) for one in found}
    limit = limits.pop() if len(limits) == 1 else None
    videos, of_video = np.unique([one.measured.video.id for one in found], return_inverse=True)
    clips = _counted(found, policy)
    few = bool(clips.near.sum() < _LEAST_RIGHT or clips.far.sum() < _LEAST_FAR)
    proposed = None if few else _least(clips, wrong)
    return Trust(
        language=language,
        videos=len(videos),
        clips=len(found),
        limit=limit,
        in_sync=clips.right(-np.inf),
        lost=None if limit is None else clips.lost(limit),
        lost_range=None if limit is None else _range(clips, limit, of_video),
        wrong=None if limit is None else clips.wrong(limit),
        few=few,
        proposed=proposed,
        lost_then=None if proposed is None else clips.lost(proposed),
    )


def _counted(found: Sequence[Candidate], policy: Policy) -> _Clips:
    syncs = [one.sync for one in found if one.sync]
    offset = np.array([abs(sync.offset_frames) for sync in syncs])
    reach = np.array([len(sync.distances) // 2 for sync in syncs])
    if reach.min() <= FAR_FRAMES + 1:
        raise ValueError(f"sync.reach={reach.min()} tries no plainly wrong offset: it wants more than {FAR_FRAMES + 1}")
    allowed = np.array([policy.limit("max_offset_frames", one.language) for one in found], float)
    allowed = np.where(np.isnan(allowed), reach, np.minimum(allowed, reach))
    confidence = np.array([sync.confidence for sync in syncs], float)
    return _Clips(
        confidence=confidence,
        weight=np.ones(len(syncs)),
        near=offset <= allowed,
        far=(offset > FAR_FRAMES) & (offset < reach),
        hidden=float(np.mean((2 * np.floor(allowed) + 1) / (2 * (reach - 1 - FAR_FRAMES)))),
    )


def _least(clips: _Clips, wrong: float) -> float | None:
    """The least limit, in tenths, that lets pass no larger share of wrong clips, if one does."""
    highest = float(clips.confidence.max())
    for limit in np.arange(0, highest, 0.1).round(1):
        share = clips.wrong(limit, more=1.0)
        if share is not None and share <= wrong:
            return float(limit)
    return None


def _range(clips: _Clips, limit: float, of_video: NDArray[np.intp]) -> tuple[float, float] | None:
    """Between which the lost share lies when videos are drawn anew, with replacement: clips of one are much alike."""
    rng = np.random.default_rng(0)
    n = int(of_video.max()) + 1
    drawn = (rng.multinomial(n, np.full(n, 1 / n))[of_video] for _ in range(_DRAWS))
    weighed = (replace(clips, weight=one.astype(float)) for one in drawn)
    shares = [share for one in weighed if (share := one.lost(limit)) is not None]
    if not shares:
        return None
    low, high = np.quantile(shares, _RANGE)
    return float(low), float(high)
