"""Who is who, what must stay together, and which of train, val and test it goes to.

A person, a set of near-duplicates, a video with all its parts and a channel never lie in two splits: a model tested on
a face it was trained on is not tested (re-uploads across splits are what MMAudio's issue 50 and auto_avsr's issue 35
are about).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SPLITS = ("train", "val", "test")

_BLOCK_ROWS = 4096  # a square block of cosines is 64 MB
_MAX_LINKED = 4000  # tracks of one component that are clustered by average linkage: 8 M distances, 64 MB


@dataclass(frozen=True, kw_only=True)
class Member:
    """One clip as far as splitting goes. `face`: mean embedding, () if none; `frames`: 0 if it will not be shipped."""

    key: str
    video: str
    channel: str
    track: int
    face: tuple[float, ...]
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
    people one; groups follow every single doubtful pair, so that no person is split if the clusters are wrong.
    """
    members = sorted(members, key=lambda member: member.key)
    persons, kin = _persons(members, same_person_cosine)
    groups = _groups(members, list(copies), kin)
    splits = assign(_frames_by_group(members, groups), val_share=val_share, test_share=test_share)
    return {
        member.key: Placement(persons[member.key], groups[member.key], splits[groups[member.key]]) for member in members
    }


def assign(frames: Mapping[str, int], *, val_share: float, test_share: float) -> dict[str, str]:
    """A split for every group, by the hash of its name, so that it stays there when other groups come.

    A group larger than a split's whole share is trained on. With two groups there is a val, with ten a test, however
    small the shares: then the group with the lowest hash moves, of those with at most half of all frames.
    """
    order = sorted(frames, key=lambda group: (_unit(group), group))
    total = sum(frames.values())
    shares = {"test": test_share, "val": val_share}
    chosen = dict.fromkeys(order, "train")
    for group in order:
        at = _unit(group)
        name = "test" if at < test_share else "val" if at < test_share + val_share else "train"
        if name != "train" and frames[group] <= max(shares[name] * total, 1):
            chosen[group] = name
    shipped = [group for group in order if frames[group]]
    for name, enough in (("val", 2), ("test", 10)):
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
    """A name made from the smallest key or id inside, that does not show it: it may outlive a forgotten video."""
    return f"{kind}-{hashlib.sha256(first.encode()).hexdigest()[:12]}"


def _unit(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _frames_by_group(members: Iterable[Member], groups: Mapping[str, str]) -> dict[str, int]:
    frames: dict[str, int] = {}
    for member in members:
        group = groups[member.key]
        frames[group] = frames.get(group, 0) + member.frames
    return frames


def _persons(members: Sequence[Member], cosine: float) -> tuple[dict[str, str], dict[str, str]]:
    """Per clip the name of its person, and of everyone linked to them by any chain of similar faces."""
    by_track: dict[tuple[str, int], list[Member]] = {}
    for member in members:
        if member.face:
            by_track.setdefault((member.video, member.track), []).append(member)
    persons = {member.key: "" for member in members}
    kin = dict(persons)
    if not by_track:
        return persons, kin
    tracks = list(by_track.values())
    faces = np.stack([mean_face([member.face for member in track]) for track in tracks])
    chained = _components(len(tracks), _similar(faces, cosine))
    for labels, names in ((_clusters(faces, chained, cosine), persons), (chained, kin)):
        named: dict[int, str] = {}
        for label, track in zip(labels.tolist(), tracks, strict=True):
            # Tracks come sorted by their first clip's key, so a cluster is named by its smallest key.
            name = named.setdefault(label, _name("p", track[0].key))
            names.update({member.key: name for member in track})
    return persons, kin


def mean_face(embeddings: Sequence[ArrayLike]) -> NDArray[np.float32]:
    """The mean direction (d,) of face embeddings, each of which counts alike; of length 1."""
    faces = np.array(embeddings, np.float32)
    faces /= np.maximum(np.linalg.norm(faces, axis=1, keepdims=True), 1e-9)
    mean = faces.mean(axis=0)
    unit: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return unit


def _similar(faces: NDArray[np.float32], cosine: float) -> NDArray[np.int64]:
    """Pairs (N, 2) of rows at least as similar as `cosine`, by products of square blocks: 64 MB at a time."""
    found = [np.empty((0, 2), np.int64)]
    for top in range(0, len(faces), _BLOCK_ROWS):
        for left in range(top, len(faces), _BLOCK_ROWS):
            block = faces[top : top + _BLOCK_ROWS] @ faces[left : left + _BLOCK_ROWS].T
            pairs = np.argwhere(block >= cosine) + np.array([top, left])
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def _components(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return labels


def _clusters(faces: NDArray[np.float32], chained: NDArray[np.int64], cosine: float) -> NDArray[np.int64]:
    """Average-linkage clusters inside each chain, cut where the mean cosine between two falls below `cosine`."""
    from scipy.cluster.hierarchy import fcluster, linkage

    labels = np.zeros(len(faces), np.int64)
    order = np.argsort(chained, kind="stable")
    begins = np.flatnonzero(np.diff(chained[order], prepend=-1))
    used = 0
    for rows in np.split(order, begins[1:]):
        if 2 < len(rows) <= _MAX_LINKED:
            inside = fcluster(linkage(faces[rows], "average", metric="cosine"), 1 - cosine, "distance") - 1
        else:
            inside = np.zeros(len(rows), np.int64)
        labels[rows] = used + inside
        used += int(inside.max()) + 1
    return labels


def _groups(members: Sequence[Member], copies: Sequence[tuple[str, str]], kin: Mapping[str, str]) -> dict[str, str]:
    """Per clip the name of its group: all that hangs together by video or its address, channel, kin or copy."""
    nodes: dict[tuple[str, str], int] = {}

    def node(kind: str, name: str) -> int:
        return nodes.setdefault((kind, name), len(nodes))

    clips = [node("clip", member.key) for member in members]
    links = [(node("clip", first), node("clip", second)) for first, second in copies]
    for clip, member in zip(clips, members, strict=True):
        links.append((clip, node("video", member.video)))
        if member.url:
            links.append((clip, node("url", member.url)))
        if channel := member.channel.strip().casefold():
            links.append((clip, node("channel", channel)))
        if kin[member.key]:
            links.append((clip, node("kin", kin[member.key])))
    labels = _components(len(nodes), np.array(links, np.int64).reshape(-1, 2))
    named: dict[int, str] = {}
    for clip, member in sorted(zip(clips, members, strict=True), key=lambda pair: pair[1].video):
        named.setdefault(int(labels[clip]), _name("g", member.video))
    return {member.key: named[int(labels[clip])] for clip, member in zip(clips, members, strict=True)}
