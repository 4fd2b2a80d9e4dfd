"""Near-duplicate clips of a whole data set: candidates by shared pieces of their hashes, then measured pair by pair."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.records import Identity
from stages.fingerprint import picture_distance, sound_distance, sound_distance_at_tempos

_SHARED = 2  # by chance alone, 1 pair in 100,000 of eight hashes each shares two pieces; 1 in 260 shares one
_SOUND_SHARE = 4  # of the pieces of a sound one in so many is used, chosen by its value: the same ones in every copy
_MIX = 2_654_435_761  # Knuth's multiplier: spreads neighbouring values
_SOUND = 1 << 18  # pieces of pictures are smaller numbers than this, those of sounds are not
_CROWD = 200  # copies; and a piece that more clips share, and more than 1 in 500 (a black frame), alone tells nothing
_MARKS = 4  # so many pieces of a sound, the least by their mixed values, tell apart who shares a crowded piece
_BLOCK_CLIPS = 2000

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Copy:
    """Two clips that show and say the same. `first < second`.

    Of a crowd, more than 200 copies of one clip, only the pairs with that one are listed, whose key is then `crowd`:
    all clips of a crowd are to be taken for copies of each other.
    """

    first: str
    second: str
    picture_distance: float
    sound_distance: float
    crowd: str = ""


def copies(
    identities: Mapping[str, Identity], *, max_picture_distance: float | None, max_sound_distance: float | None
) -> tuple[Copy, ...]:
    """All pairs of clips of different videos, or of different times of one, that are close in picture and in sound;
    of crowds fewer, see `Copy`. Sorted.

    Both must be close: one speaker before one wall looks the same for an hour, and a song is heard in many videos.
    A limit of `None` switches the search off. Only pairs that share two pieces are measured: quarters of a picture's
    hash, or two neighbouring words of a sound's. Of real clips that finds by the picture alone 97 to 100 of 100 copies
    that were scaled down and compressed, brightened, mirrored or trimmed and 56 that were cropped by 10 %; by the sound
    alone 95 to 100 that were compressed (MP3, AAC) or trimmed by whole hops, 68 under noise at 20 dB. Copies of another
    video at another tempo (up to 6 %) are found by the picture; none are looked for inside one video.

    Of the clips that share a crowded piece (a black frame; an advert that hundreds of videos show) only neighbours are
    measured among those that share a piece of the sound too; what hangs together by them, or shares any piece of its
    sound, is measured with one clip of it. So time grows with the clips, the pairs listed and what shares two pieces
    that are not crowded, not with the square of the clips or of a crowd. Made copies of which each bit is changed with
    a chance of up to 5 %: all of 300 are found among 30,000 clips.
    """
    if max_picture_distance is None or max_sound_distance is None:
        return ()
    search = _Search(identities, max_picture_distance, max_sound_distance)
    rows, pieces, n_holders = _held(search.clips)
    everyone = np.arange(len(search.clips))
    crowded = n_holders > max(_CROWD, len(everyone) // 500)
    search.measure(_chained(rows, pieces, crowded))
    firsts = [star[0] for star in _stars(search.found, search.are_copies) if len(star) > _CROWD // 2]
    heard = pieces > _SOUND
    for pairs in _sharing(rows[heard], pieces[heard], np.array(firsts, int), everyone, least=1):
        search.measure(pairs)
    search.gather()
    for pairs in _sharing(rows[~crowded], pieces[~crowded], everyone, everyone, least=_SHARED):
        search.join(pairs)
        search.measure(pairs)
    for star in search.gather():
        search.measure(np.array([*combinations(star, 2)]))
    return tuple(sorted(search.listed()))


class _Search:
    """What is known of clips, by their numbers in the order of their keys, while pairs of them are measured."""

    def __init__(
        self, identities: Mapping[str, Identity], max_picture_distance: float, max_sound_distance: float
    ) -> None:
        self.keys = sorted(identities)
        self.clips = [identities[key] for key in self.keys]
        self.limits = max_picture_distance, max_sound_distance
        self.found: dict[tuple[int, int], tuple[float, float]] = {}  # distances of copies
        self.refused: set[tuple[int, int]] = set()  # that did not join a crowd
        self.crowd = np.full(len(self.keys), -1)  # per clip the one that all of its crowd are copies of

    def are_copies(self, first: int, second: int) -> bool:
        """Measure two clips, if they are not known for copies, and know them then."""
        pair = (min(first, second), max(first, second))
        if pair not in self.found and (distances := self._distances(*pair)):
            self.found[pair] = distances
        return pair in self.found

    def _distances(self, first: int, second: int) -> tuple[float, float] | None:
        one, other = self.clips[first], self.clips[second]
        max_picture_distance, max_sound_distance = self.limits
        seen = picture_distance(one.picture_hash, other.picture_hash)
        if seen >= max_picture_distance:
            return None
        heard = sound_distance(one.sound_hash, other.sound_hash)
        # re-uploads are played a little faster
        if heard >= max_sound_distance and video_of(self.keys[first]) != video_of(self.keys[second]):
            heard = min(heard, sound_distance_at_tempos(one.sound_hash, other.sound_hash))
        return (seen, heard) if heard < max_sound_distance else None

    def measure(self, pairs: Ints) -> None:
        """Know those of `pairs` (N, 2) for copies that are, but for pairs inside a crowd."""
        crowds = self.crowd[pairs]
        for one, other in pairs[(crowds[:, 0] < 0) | (crowds[:, 0] != crowds[:, 1])].tolist():
            self.are_copies(one, other)

    def gather(self) -> list[list[int]]:
        """Make a crowd of each star of more than `_CROWD` clips. The other stars, whose clips are in no crowd."""
        smaller = []
        links = [(one, other) for one, other in self.found if max(self.crowd[one], self.crowd[other]) < 0]
        for star in _stars(links, self.are_copies):
            if len(star) > _CROWD:
                self.crowd[star] = star[0]
            else:
                smaller.append(sorted(star))
        return smaller

    def join(self, pairs: Ints) -> None:
        """Let who is in a pair with one of a crowd join it if it is a copy of the same clip. `pairs`: (N, 2)."""
        crowds = self.crowd[pairs]
        beside = np.where(crowds < 0, pairs, -1).max(axis=1)
        asking = np.stack([beside, crowds.max(axis=1)], axis=1)[(crowds < 0).sum(axis=1) == 1]
        for one, first in np.unique(asking, axis=0).tolist():
            if self.crowd[one] < 0 and (one, first) not in self.refused:
                if self.are_copies(one, first):
                    self.crowd[one] = first
                else:
                    self.refused.add((one, first))

    def listed(self) -> Iterator[Copy]:
        """The copies that were found; of a crowd those with the one clip."""
        for (one, other), distances in self.found.items():
            crowd = self.crowd[one] if self.crowd[one] == self.crowd[other] else -1
            if crowd in (-1, one, other):
                yield Copy(self.keys[one], self.keys[other], *distances, "" if crowd < 0 else self.keys[crowd])


def video_of(key: str) -> str:
    """The id of the video that a clip is of."""
    return key.rpartition("-")[0]


def _stars(links: Iterable[tuple[int, int]], are_copies: Callable[[int, int], bool]) -> Iterator[list[int]]:
    """Sets of clips that hang together by `links` and are all copies of the first, which has the most of them. Every
    linked clip is in one."""
    linked: dict[int, set[int]] = defaultdict(set)
    for one, other in links:
        linked[one].add(other)
        linked[other].add(one)
    taken: set[int] = set()
    for first in sorted(linked, key=lambda one: (-len(linked[one]), one)):
        if first in taken:
            continue
        star, tried = [first], {first}
        for at in star:  # which grows
            near = sorted(linked[at] - tried - taken)
            star += [other for other in near if are_copies(first, other)]
            tried |= set(near)
        taken |= set(star)
        yield star


def _held(clips: Sequence[Identity]) -> tuple[Ints, Ints, Ints]:
    """Who holds which piece: numbers of clips (N,), rising, their pieces (N,), and how many hold each of these (N,)."""
    pieces = [_pieces(one) for one in clips]
    rows = np.repeat(np.arange(len(clips)), [len(found) for found in pieces])
    held = np.concatenate([*pieces, np.empty(0, np.int64)])
    _, at, n_holders = np.unique(held, return_inverse=True, return_counts=True)
    return rows, held, n_holders[at]


def _pieces(one: Identity) -> Ints:
    """The distinct pieces of a clip as numbers. A piece of a picture keeps its place inside its 64-bit hash; which of
    the clip's hashes or words it comes from is left out, since a copy may begin a little earlier."""
    seen = np.frombuffer(bytes.fromhex(one.picture_hash), ">u2").astype(np.int64)
    seen += np.arange(len(seen)) % 4 << 16
    heard = np.frombuffer(bytes.fromhex(one.sound_hash), ">u2").astype(np.int64)
    heard = heard[:-1] << 16 | heard[1:]
    heard = heard[_mixed(heard) < (1 << 32) // _SOUND_SHARE] + _SOUND
    return np.unique(np.concatenate([seen, heard]))


def _mixed(heard: Ints) -> Ints:
    return heard * _MIX % (1 << 32)


def _sharing(rows: Ints, pieces: Ints, ones: Ints, everyone: Ints, *, least: int) -> Iterator[Ints]:
    """Pairs (N, 2) of one of `ones` and another clip that share at least so many pieces: counted by a sparse product, a
    block of `ones` at a time."""
    from scipy.sparse import csr_array

    if not len(ones):
        return
    names, columns, n_holders = np.unique(pieces, return_inverse=True, return_counts=True)
    rows, columns = rows[n_holders[columns] > 1], columns[n_holders[columns] > 1]
    holds = csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=(len(everyone), len(names)))
    others = holds.T.tocsr()
    for block in np.split(ones, range(_BLOCK_CLIPS, len(ones), _BLOCK_CLIPS)):
        shared = (holds[block] @ others).tocoo()
        pairs = np.stack([block[shared.row], shared.col], axis=1)[shared.data >= least]
        pairs = pairs[(pairs[:, 0] < pairs[:, 1]) | ~np.isin(pairs[:, 1], ones)]
        yield pairs[np.lexsort(pairs.T[::-1])]


def _chained(rows: Ints, pieces: Ints, crowded: NDArray[np.bool_]) -> Ints:
    """Pairs (N, 2), sorted, of clips that share a crowded piece of a picture and one of the `_MARKS` of their sounds,
    each clip with the next one that does: two copies of hundreds hang together by others."""
    heard = np.flatnonzero(pieces > _SOUND)  # silence, which says nothing, is the piece of this very number
    heard = heard[np.lexsort((_mixed(pieces[heard] - _SOUND), rows[heard]))]
    rank = np.arange(len(heard)) - np.searchsorted(rows[heard], rows[heard])
    marks = np.full((rows.max(initial=-1) + 1, _MARKS), -1)
    marks[rows[heard[rank < _MARKS]], rank[rank < _MARKS]] = pieces[heard[rank < _MARKS]]
    seen = np.flatnonzero(crowded & (pieces < _SOUND))
    both = pieces[seen, None] << 33 | marks[rows[seen]]
    holders = np.broadcast_to(rows[seen, None], both.shape)[both >= 0]
    both = both[both >= 0]
    order = np.lexsort((holders, both))
    both, holders = both[order], holders[order]
    pairs = np.stack([holders[:-1], holders[1:]], axis=1)
    return np.unique(pairs[both[:-1] == both[1:]], axis=0)
