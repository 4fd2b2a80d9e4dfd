"""Who is who, what must stay together, and which of train, val and test it goes to.

A person (as `place` tells persons apart), a set of near-duplicates, a video with all its parts and a channel never lie
in two splits: a model tested on a face it was trained on is not tested (re-uploads across splits are what MMAudio's
issue 50 and auto_avsr's issue 35 are about).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from manifests.records import Video
from manifests.text import folded

SPLITS = ("train", "val", "test")

LEAST_GROUPS = {"val": 2, "test": 10}
"""So many groups there have to be for a split to get one, however small its share."""

_BLOCK_ROWS = 4096  # a square block of cosines is 64 MB
_MAX_DISTANCES = 8_000_000  # that average linkage writes out, if these are not few beside the pairs: 64 MB
_MAX_DOUBTED = 200  # clips of a group made by doubt; without, at one false pair in a million, 67 % of 30,000 are one
_ROUNDING = 1e-6  # of a cosine in single precision


@dataclass(frozen=True, kw_only=True)
class Member:
    """One clip as far as splitting goes. `face`: mean embedding, () if none; `frames`: 0 if it will not be shipped."""

    key: str
    video: str
    channel: str
    track: int
    face: Sequence[float]
    frames: int
    url: str = ""  # of the whole video, which several may be parts of


@dataclass(frozen=True)
class Placement:
    """Where a clip belongs: its person ("" with no face known), the group that stays together, and its split."""

    person: str
    group: str
    split: str


def place(
    members: Sequence[Member],
    copies: Iterable[tuple[str, str]],
    *,
    same_person_cosine: float,
    val_share: float,
    test_share: float,
) -> dict[str, Placement]:
    """The placement of every clip by key; the same for any order of `members` and of `copies` (pairs of keys).

    Persons are average-linkage clusters of the mean faces of tracks, so that one doubtful pair does not make two
    people one, however many such pairs hang together. Where two people have one track each, that pair is all there is.

    Groups follow doubtful pairs too, up to `_MAX_DOUBTED` clips a group, so that few persons are split if the clusters
    are wrong; none in a set that small. A person, copies, a video and a channel make a group of any size.
    """
    members = sorted(members, key=lambda member: member.key)
    persons, doubts = _persons(members, same_person_cosine)
    groups = _groups(members, copies, persons, doubts)
    splits = assign(_frames_by_group(members, groups), val_share=val_share, test_share=test_share)
    return {
        member.key: Placement(persons[member.key], groups[member.key], splits[groups[member.key]]) for member in members
    }


def assign(frames: Mapping[str, int], *, val_share: float, test_share: float) -> dict[str, str]:
    """A split for every group, by the hash of its name, so that it stays there when other groups come. Two exceptions:

    A group larger than a split's whole share is trained on; more frames elsewhere may make it small enough. With two
    groups there is a val, with ten a test, however small the shares: where the hashes give none, the group with the
    lowest hash moves, of those with at most half of all frames, and when others come another may take its place.
    """
    order = sorted(frames, key=lambda group: (_unit(group), group))
    total = sum(frames.values())
    shares = {"test": test_share, "val": val_share}
    chosen = dict.fromkeys(order, "train")
    for group in order:
        at = _unit(group)
        name = "test" if at < test_share else "val" if at < test_share + val_share else "train"
        if name != "train" and frames[group] <= shares[name] * total:
            chosen[group] = name
    shipped = [group for group in order if frames[group]]
    for name, enough in LEAST_GROUPS.items():
        if shares[name] and len(shipped) >= enough and not any(chosen[group] == name for group in shipped):
            _move_one(chosen, shipped, frames, name)
    return chosen


def _move_one(chosen: dict[str, str], shipped: Sequence[str], frames: Mapping[str, int], name: str) -> None:
    """`shipped` is sorted by hash."""
    trained = [group for group in shipped if chosen[group] == "train"]
    if len(trained) > 1:
        most = max(sum(frames[group] for group in shipped) // 2, min(frames[group] for group in trained))
        chosen[next(group for group in trained if frames[group] <= most)] = name


def _name(kind: str, first: str) -> str:
    """A name of the smallest key, channel or id inside, that does not show it: it may outlive a forgotten one."""
    return f"{kind}-{hashlib.sha256(first.encode()).hexdigest()[:12]}"


def _unit(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _frames_by_group(members: Iterable[Member], groups: Mapping[str, str]) -> dict[str, int]:
    frames: dict[str, int] = {}
    for member in members:
        group = groups[member.key]
        frames[group] = frames.get(group, 0) + member.frames
    return frames


def _persons(members: Sequence[Member], cosine: float) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Per clip the name of its person; and of each two persons with a doubtful pair a clip each.

    Those who are most alike in the mean come first: one person under two names before two with one odd track each.
    """
    by_track: dict[tuple[str, int], list[Member]] = {}
    for member in members:
        if member.face:
            by_track.setdefault((member.video, member.track), []).append(member)
    persons = {member.key: "" for member in members}
    if not by_track:
        return persons, []
    tracks = list(by_track.values())
    faces = np.stack([mean_face([member.face for member in track]) for track in tracks])
    pairs = _similar(faces, cosine)
    labels = _clusters(faces, pairs, cosine)
    first: dict[int, str] = {}
    for label, track in zip(labels.tolist(), tracks, strict=True):
        # Tracks come sorted by their first clip's key, so a cluster is named by its smallest key.
        name = _name("p", first.setdefault(label, track[0].key))
        persons.update({member.key: name for member in track})
    return persons, [(first[one], first[other]) for one, other in _doubts(faces, labels, pairs).tolist()]


def mean_face(embeddings: Sequence[ArrayLike]) -> NDArray[np.float32]:
    """The mean direction (d,) of face embeddings, each of which counts alike; of length 1."""
    faces = np.array(embeddings, np.float32)
    faces /= np.maximum(np.linalg.norm(faces, axis=1, keepdims=True), 1e-9)
    mean = faces.mean(axis=0)
    unit: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return unit


def _similar(faces: NDArray[np.float32], cosine: float) -> NDArray[np.int32]:
    """Pairs (N, 2) of rows at least as similar as `cosine`, by products of square blocks: 64 MB at a time.

    There are as many as the square of a person's tracks, so they are short.
    """
    found = [np.empty((0, 2), np.int32)]
    for top in range(0, len(faces), _BLOCK_ROWS):
        for left in range(top, len(faces), _BLOCK_ROWS):
            block = faces[top : top + _BLOCK_ROWS] @ faces[left : left + _BLOCK_ROWS].T
            one, other = np.nonzero(block >= cosine)
            pairs = np.stack([one + top, other + left], axis=1).astype(np.int32)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def _components(n: int, pairs: NDArray[np.int32]) -> NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return labels


def _clusters(faces: NDArray[np.float32], pairs: NDArray[np.int32], cosine: float) -> NDArray[np.int64]:
    """Average-linkage clusters, cut where the mean cosine between two falls below `cosine`; `pairs`: all that reach it.

    The mean of two clusters reaches it only if a pair does, so each chain of pairs is a matter of its own.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    labels = np.zeros(len(faces), np.int64)
    chained = _components(len(faces), pairs)
    order = np.argsort(chained, kind="stable")
    begins = np.flatnonzero(np.diff(chained[order], prepend=-1))
    n_pairs = np.bincount(chained[pairs[:, 0]], minlength=len(begins))
    used = 0
    for rows, n in zip(np.split(order, begins[1:]), n_pairs, strict=True):
        if len(rows) <= 2:
            inside = np.zeros(len(rows), np.int64)
        elif len(rows) * (len(rows) - 1) // 2 <= max(_MAX_DISTANCES, 4 * n):
            inside = fcluster(linkage(faces[rows], "average", metric="cosine"), 1 - cosine, "distance") - 1
        else:
            linked = np.searchsorted(rows, pairs[chained[pairs[:, 0]] == chained[rows[0]]])
            inside = _clusters_of_many(faces[rows], linked, cosine)
        labels[rows] = used + inside
        used += int(inside.max()) + 1
    return labels


def _clusters_of_many(faces: NDArray[np.float32], pairs: NDArray[np.int64], cosine: float) -> NDArray[np.int64]:
    """The same for a chain of which few of all pairs are `pairs`: 100,000 tracks have distances of 40 GB.

    By the nearest-neighbour chain algorithm: from each cluster on to its nearest until two are each other's nearest,
    which are joined. The mean cosine of two clusters is the product of their mean vectors; only those that `pairs`
    link can reach `cosine`.
    """
    means, sizes, joined = faces.copy(), np.ones(len(faces), np.int64), np.arange(len(faces))
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    near = np.split(ends[:, 1], np.searchsorted(ends[:, 0], np.arange(1, len(faces))))
    waiting = list(range(len(faces)))
    path: list[tuple[int, float]] = []  # a cluster, and its cosine to the one before it
    while path or waiting:
        if not path:
            path.append((waiting.pop(), -1.0))
        at, reached = path[-1]
        if joined[at] != at:
            path.pop()
            continue
        others = np.unique(_roots(joined, near[at]))
        others = others[others != at]
        cosines = means[others] @ means[at]
        near[at] = others[cosines >= cosine]
        best = int(np.argmax(cosines)) if near[at].size else -1
        if best >= 0 and cosines[best] > reached + _ROUNDING:
            path.append((int(others[best]), float(cosines[best])))
            continue
        path.pop()
        if path:
            less, more = sorted((at, path.pop()[0]), key=lambda one: sizes[one])
            size = sizes[less] + sizes[more]
            means[more] += (means[less] - means[more]) * np.float32(sizes[less] / size)
            near[more] = np.concatenate([near[less], near[more]])
            joined[less], sizes[more] = more, size
            waiting.append(more)
    labels: NDArray[np.int64] = np.unique(_roots(joined, joined), return_inverse=True)[1]
    return labels


def _roots(joined: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each of `ids` has been joined to in the end."""
    while not np.array_equal(ids, above := joined[ids]):
        ids = above
    return ids


def _doubts(faces: NDArray[np.float32], labels: NDArray[np.int64], pairs: NDArray[np.int32]) -> NDArray[np.int64]:
    """Pairs (N, 2) of clusters that one of `pairs` links, those with the highest mean cosine first."""
    n = int(labels.max()) + 1
    ends = labels[pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]]
    ends = np.sort(ends, axis=1)
    ends = np.stack(np.divmod(np.unique(ends @ np.array([n, 1])), n), axis=1)
    order = np.argsort(labels, kind="stable")
    means = np.add.reduceat(faces[order], np.searchsorted(labels[order], np.arange(n))) / np.bincount(labels)[:, None]
    blocks = np.array_split(ends, len(ends) // _BLOCK_ROWS + 1)
    cosines = np.concatenate([np.einsum("nd,nd->n", means[block[:, 0]], means[block[:, 1]]) for block in blocks])
    found: NDArray[np.int64] = ends[np.argsort(-cosines, kind="stable")]
    return found


def _groups(
    members: Sequence[Member],
    copies: Iterable[tuple[str, str]],
    persons: Mapping[str, str],
    doubts: Iterable[tuple[str, str]],
) -> dict[str, str]:
    """Per clip the name of its group: all that hangs together by video or its address, channel, person or copy.

    Then by `doubts`, in their order, each where the group it makes has at most `_MAX_DOUBTED` clips. The smallest
    channel names a group, as it stays when more of its videos come; without one the smallest file, of more parts.
    """
    from scipy.cluster.hierarchy import DisjointSet

    together = DisjointSet(member.key for member in members)
    first: dict[tuple[str, str], str] = {}
    for member in members:
        bonds = {"video": member.video, "url": member.url, "channel": folded(member.channel)}
        for kind, name in (*bonds.items(), ("person", persons[member.key])):
            if name:
                together.merge(first.setdefault((kind, name), member.key), member.key)
    for one, other in copies:
        together.merge(one, other)
    for one, other in doubts:
        if together.subset_size(one) + together.subset_size(other) <= _MAX_DOUBTED:
            together.merge(one, other)
    named: dict[str, str] = {}
    for _, origin, key in sorted((*_origin(member), member.key) for member in members):
        named.setdefault(together[key], _name("g", origin))
    return {member.key: named[together[member.key]] for member in members}


def _origin(member: Member) -> tuple[bool, str]:
    """Where a clip comes from, channels before files: its channel, else the id that its file has as a whole."""
    if channel := folded(member.channel):
        return False, f"channel {channel}"
    return True, Video.of(member.url).id if member.url else member.video
