"""Which clips lose to others: of two faces seen at once the one whose lips match less, of copies the worse. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from manifests.records import Receipt
from stages.duplicates import Copy

_AS_GOOD = 0.9
"""[own] What reads at least so much of the best copy's reading is as good: encoding a clip anew moves the confidence of
its lips by some hundredths and the size of its face by some pixels, either way."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A clip as far as it is compared with others. Times are seconds of its video."""

    key: str
    video: str
    track: int
    start_s: float
    end_s: float
    n_frames: int
    confidence: float | None  # of the lips; None: not measured
    effective_face_px: float = 0.0  # in the source; an enlarged copy has no more of them than what it copies
    sharpness: float = 0.0


def out_talked(contenders: Iterable[Contender]) -> dict[str, Receipt]:
    """Clips during at least half of which another face on screen matches the voice better, with the winner's key."""
    by_video: dict[str, list[Contender]] = {}
    for one in contenders:
        by_video.setdefault(one.video, []).append(one)
    return {
        one.key: receipt
        for together in by_video.values()
        for one in together
        if (receipt := _beaten(one, together)) is not None
    }


@dataclass
class _Rival:
    """Another track beside one clip: its confidence weighted by the seconds shared, and its clip that shares most."""

    shared_s: float = 0.0
    weighted: float = 0.0
    most: tuple[float, str] = field(default=(0.0, ""))


def _beaten(one: Contender, together: Sequence[Contender]) -> Receipt | None:
    if one.confidence is None:
        return None
    rivals: dict[int, _Rival] = {}
    for other in together:
        shared_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
        if other.track == one.track or shared_s <= 0 or other.confidence is None:
            continue
        rival = rivals.setdefault(other.track, _Rival())
        rival.shared_s += shared_s
        rival.weighted += shared_s * other.confidence
        rival.most = max(rival.most, (shared_s, other.key))
    beside = [rival for rival in rivals.values() if rival.shared_s >= 0.5 * (one.end_s - one.start_s)]
    if not beside:
        return None
    best = max(beside, key=lambda rival: (rival.weighted / rival.shared_s, rival.most[1]))
    margin = one.confidence - best.weighted / best.shared_s
    # A tie goes to the clip with the smaller key, so that not both are lost.
    if margin > 0 or (margin == 0 and one.key < best.most[1]):
        return None
    return Receipt("not_the_speaker", one.confidence, best.most[1], margin)


_QUALITIES: tuple[Callable[[Contender], float], ...] = (
    lambda one: one.confidence or 0.0,
    lambda one: one.effective_face_px,
    lambda one: one.sharpness,
)


def worse_copies(
    contenders: Sequence[Contender], copied: Iterable[Copy], max_picture_distance: float
) -> Iterator[tuple[str, Receipt]]:
    """Every clip that has a better copy which is kept, greedily from the best clip down.

    Better is whose lips match clearly more; else whose face is clearly larger; else clearly sharper; else the longer.
    Clearly means against the best of those of a clip's own copies that are like it in all that comes first, so that a
    reading on the edge of a bin decides nothing. Of a crowd (see `Copy`) first all lose to the best, at their distance
    to the clip that all were measured with.
    """
    by_key = {one.key: one for one in contenders}
    copies_of: dict[str, dict[str, float]] = {}
    crowds: dict[str, dict[str, float]] = {}
    for copy in copied:
        if copy.crowd:
            member = copy.second if copy.first == copy.crowd else copy.first
            crowds.setdefault(copy.crowd, {})[member] = copy.picture_distance
        else:
            copies_of.setdefault(copy.first, {})[copy.second] = copy.picture_distance
            copies_of.setdefault(copy.second, {})[copy.first] = copy.picture_distance
    lost: dict[str, tuple[float, str]] = {}
    for name, distances in crowds.items():
        best = _best([by_key[key] for key in (name, *distances)]).key
        found = {name: distances.get(best, 0.0)} | distances
        lost |= {key: (distance, best) for key, distance in found.items() if key != best}

    def rank(one: Contender) -> tuple[float | str, ...]:
        among = [one, *(by_key[key] for key in copies_of[one.key])]
        behind: list[bool] = []
        for quality in _QUALITIES:
            top = _AS_GOOD * max(map(quality, among))
            behind.append(quality(one) < top)
            among = [other for other in among if (quality(other) < top) == behind[-1]]
        return (*behind, -one.n_frames, one.key)

    kept: set[str] = set()
    for one in sorted((by_key[key] for key in copies_of.keys() - lost), key=rank):
        nearest = min(((d, other) for other, d in copies_of[one.key].items() if other in kept), default=None)
        if nearest is None:
            kept.add(one.key)
        else:
            lost[one.key] = nearest
    for key, (distance, winner) in lost.items():
        _, winner = lost.get(winner, (0.0, winner))  # the best of a crowd may have lost to a clip beside it
        yield key, Receipt("duplicate", distance, winner, distance - max_picture_distance)


def _best(among: Sequence[Contender]) -> Contender:
    for quality in _QUALITIES:
        top = _AS_GOOD * max(map(quality, among))
        among = [one for one in among if quality(one) >= top]
    return min(among, key=lambda one: (-one.n_frames, one.key))
