"""Near-duplicate clips of a whole data set: candidates by shared pieces of their hashes, then measured pair by pair."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.records import Identity
from stages.fingerprint import picture_distance, sound_distance, sound_distance_at_tempos

_SHARED = 2  # by chance alone, 1 pair in 100,000 of eight hashes each shares two pieces; 1 in 260 shares one
_SOUND_SHARE = 4  # of the pieces of a sound one in so many is used, chosen by its value: the same ones in every copy
_MIX = 2_654_435_761  # Knuth's multiplier: spreads neighbouring values
_NONE = np.empty(0, np.int64)
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
    A limit of `None` switches the search off. Only pairs that share two pieces are measured: quarters of a picture's
    hash, or two neighbouring words of a sound's. Of real clips that finds by the picture alone 97 to 100 of 100 copies
    that were scaled down and compressed, brightened, mirrored or trimmed and 56 that were cropped by 10 %; by the sound
    alone 95 to 100 that were compressed (MP3, AAC) or trimmed by whole hops, 68 under noise at 20 dB. Copies of another
    video at another tempo (up to 6 %) are found by the picture; none are looked for inside one video. Time grows with
    the clips and the pairs found, not with the square of the clips.
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
        if heard >= max_sound_distance and _video(first) != _video(second):  # re-uploads are played a little faster
            heard = min(heard, sound_distance_at_tempos(one.sound_hash, other.sound_hash))
        if heard < max_sound_distance:
            found.append(Copy(first, second, seen, heard))
    return tuple(found)


def _video(key: str) -> str:
    return key.rpartition("-")[0]


def _candidates(identities: Mapping[str, Identity]) -> Iterator[tuple[str, str]]:
    """Pairs, sorted, that share at least `_SHARED` pieces: counted by a sparse product, a block of clips at a time."""
    from scipy.sparse import csr_array

    keys = sorted(identities)
    pieces = [_pieces(identities[key]) for key in keys]
    rows = np.repeat(np.arange(len(keys)), [len(found) for found in pieces])
    _, columns, holders = np.unique(np.concatenate(pieces or [_NONE]), return_inverse=True, return_counts=True)
    telling = (holders > 1) & (holders <= max(_CROWD, len(keys) // 500))
    rows, columns = rows[telling[columns]], columns[telling[columns]]
    holds = csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=(len(keys), len(holders)))
    others = holds.T.tocsr()
    for top in range(0, len(keys), _BLOCK_CLIPS):
        shared = (holds[top : top + _BLOCK_CLIPS] @ others).tocoo()
        first, second = shared.row + top, shared.col
        enough = (shared.data >= _SHARED) & (first < second)
        for a, b in sorted(zip(first[enough].tolist(), second[enough].tolist(), strict=True)):
            yield keys[a], keys[b]


def _pieces(one: Identity) -> NDArray[np.int64]:
    """The distinct pieces of a clip as numbers. A piece of a picture keeps its place inside its 64-bit hash; which of
    the clip's hashes or words it comes from is left out, since a copy may begin a little earlier."""
    seen = np.frombuffer(bytes.fromhex(one.picture_hash), ">u2").astype(np.int64)
    seen += np.arange(len(seen)) % 4 << 16
    heard = np.frombuffer(bytes.fromhex(one.sound_hash), ">u2").astype(np.int64)
    heard = heard[:-1] << 16 | heard[1:]
    heard = heard[heard * _MIX % (1 << 32) < (1 << 32) // _SOUND_SHARE] + (1 << 18)
    return np.unique(np.concatenate([seen, heard]))
