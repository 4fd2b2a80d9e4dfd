"""Near-duplicate clips of a whole data set: candidates by shared pieces of their hashes, then measured pair by pair."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from manifests.records import Identity
from stages.fingerprint import picture_distance, sound_distance

_PIECE_BITS = 16
_SHARED = 2  # by chance alone, 1 pair in 100,000 of eight hashes each shares two pieces; 1 in 260 shares one
_CROWD = 200  # a piece that more clips share, and more than 1 in 500 (a black frame), tells none of them apart
_BLOCK_CLIPS = 2000


@dataclass(frozen=True, order=True)
class Copy:
    """Two clips that show and say the same. `first < second`."""

    first: str
    second: str
    picture_distance: float
    sound_distance: float


def copies(
    identities: Mapping[str, Identity], *, max_picture_distance: float | None, max_sound_distance: float | None
) -> tuple[Copy, ...]:
    """All pairs of clips of different videos, or of different times of one, that are close in picture and in sound.

    Both must be close: one speaker before one wall looks the same for an hour, and a song is heard in many videos.
    A limit of `None` switches the search off. Only pairs that share two 16-bit pieces of their picture hashes are
    measured: with eight 64-bit hashes each, 92 of 100 pairs do if 12 % of the bits differ at random, and all do below
    5 %. Time grows with the clips and the pairs found, not with the square of the clips.
    """
    if max_picture_distance is None or max_sound_distance is None:
        return ()
    found = []
    for first, second in _candidates(identities):
        one, other = identities[first], identities[second]
        seen = picture_distance(one.picture_hash, other.picture_hash)
        if seen >= max_picture_distance:
            continue
        heard = sound_distance(one.sound_hash, other.sound_hash)
        if heard < max_sound_distance:
            found.append(Copy(first, second, seen, heard))
    return tuple(found)


def _candidates(identities: Mapping[str, Identity]) -> Iterator[tuple[str, str]]:
    """Pairs, sorted, that share at least `_SHARED` pieces: counted by a sparse product, a block of clips at a time."""
    from scipy.sparse import csr_array

    keys = sorted(identities)
    pieces = [sorted(set(_pieces(identities[key].picture_hash))) for key in keys]
    rows = np.repeat(np.arange(len(keys)), [len(found) for found in pieces])
    columns = np.fromiter((piece for found in pieces for piece in found), np.int64, len(rows))
    holds = csr_array((np.ones(len(rows), np.int16), (rows, columns)), shape=(len(keys), 4 << _PIECE_BITS))
    telling = np.flatnonzero(np.bincount(columns, minlength=4 << _PIECE_BITS) <= max(_CROWD, len(keys) // 500))
    holds = holds.tocsc()[:, telling].tocsr()
    others = holds.T.tocsr()
    for top in range(0, len(keys), _BLOCK_CLIPS):
        shared = (holds[top : top + _BLOCK_CLIPS] @ others).tocoo()
        first, second = shared.row + top, shared.col
        enough = (shared.data >= _SHARED) & (first < second)
        for a, b in sorted(zip(first[enough].tolist(), second[enough].tolist(), strict=True)):
            yield keys[a], keys[b]


def _pieces(picture_hash: str) -> Iterator[int]:
    """Every piece with its place inside its 64-bit hash. Which of the clip's hashes it comes from is left out, since a
    copy may begin a little earlier."""
    digits = _PIECE_BITS // 4
    for start in range(0, len(picture_hash) - digits + 1, digits):
        yield (start // digits % 4 << _PIECE_BITS) + int(picture_hash[start : start + digits], 16)
