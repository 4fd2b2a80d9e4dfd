"""No person, no copy, no video and no channel lies in two splits, and small sets have a val."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.records import Video
from stages import split as splitting
from stages.split import Member, assign, place
from tests.stages.measured import face

SHARES = {"same_person_cosine": 0.42, "val_share": 0.1, "test_share": 0.1}


def member(video, number=0, *, channel="", person=None, track=0, frames=100, noise=0.5):
    known = () if person is None else face(person, noise=noise, seed=number + 100 * int(video[1:]), width=64)
    return Member(
        key=f"{video}-{number:04d}", video=video, channel=channel, track=track, face=known, frames=frames
    )  # fmt: skip


members = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 6), st.sampled_from(["", "a", "b", "c", "d"])), min_size=1, max_size=40
)


@settings(max_examples=80, deadline=None)
@given(members, st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=5), st.randoms())
def test_what_belongs_together_stays_together(drawn, pairs, random):
    channels = {video: channel for video, _, channel in drawn}
    clips = [
        member(f"v{video}", n, channel=channels[video], person=person, track=person)
        for n, (video, person, _) in enumerate(drawn)
    ]
    keys = [clip.key for clip in clips]
    copies = [(keys[a], keys[b]) for a, b in pairs if a < len(keys) and b < len(keys)]
    placed = place(clips, copies, **SHARES)
    assert set(placed) == set(keys)

    def apart(name_of):
        seen = {}
        return [
            clip.key for clip in clips
            if (name := name_of(clip)) and seen.setdefault(name, placed[clip.key].split) != placed[clip.key].split
        ]  # fmt: skip

    assert apart(lambda clip: clip.video) == apart(lambda clip: clip.channel) == []
    assert apart(lambda clip: placed[clip.key].person) == apart(lambda clip: placed[clip.key].group) == []
    true_person = dict(zip(keys, (person for _, person, _ in drawn), strict=True))
    assert apart(lambda clip: f"person {true_person[clip.key]}") == []
    assert all(placed[a].split == placed[b].split for a, b in copies)
    shuffled = clips[:]
    random.shuffle(shuffled)
    assert place(shuffled, copies[::-1], **SHARES) == placed


def test_persons_are_told_apart_and_found_again_in_other_videos():
    clips = [member(f"v{v}", n, person=v % 7, noise=0.5) for v in range(21) for n in range(3)]
    placed = place(clips, [], **SHARES)
    by_person = {}
    for clip in clips:
        by_person.setdefault(placed[clip.key].person, set()).add(int(clip.video[1:]) % 7)
    assert len(by_person) == 7 and all(len(true) == 1 for true in by_person.values())


def test_a_person_is_told_by_its_whole_track_and_a_video_may_show_two():
    clips = [member("v1", n, track=track, person=n) for n, track in enumerate((0, 1, 1))]
    placed = [place(clips, [], **SHARES)[clip.key].person for clip in clips]
    assert placed[0] != placed[1] == placed[2]


def unit(angle, other=0.0):
    return (float(np.cos(angle)), float(np.sin(angle)), other)


def test_one_doubtful_face_between_two_persons_does_not_make_them_one():
    angles = [0.0, 0.1, 0.2, 1.0, 1.8, 1.9, 2.0]  # cosine 0.6 reaches 0.93 rad: the fourth links both sides
    clips = [
        Member(key=f"v{n}-0000", video=f"v{n}", channel="", track=0, face=unit(angle), frames=9)
        for n, angle in enumerate(angles)
    ]
    placed = place(clips, [], same_person_cosine=0.6, val_share=0.1, test_share=0.1)
    persons = [placed[clip.key].person for clip in clips]
    assert persons[0] == persons[1] == persons[2] != persons[4] == persons[5] == persons[6]
    assert len({placed[clip.key].group for clip in clips}) == 1


def of_faces(faces, channels=None):
    channels = channels or [""] * len(faces)
    return [
        Member(key=f"v{n:06d}-0000", video=f"v{n:06d}", channel=channel, track=0, face=tuple(one), frames=100)
        for n, (one, channel) in enumerate(zip(np.asarray(faces).tolist(), channels, strict=True))
    ]


def sizes(placed, of):
    return sorted(Counter(getattr(one, of) for one in placed.values()).values())


def test_three_tracks_of_which_two_pairs_are_alike_are_two_persons():
    placed = place(of_faces([unit(0.0), unit(0.9), unit(1.8)]), [], **SHARES | {"same_person_cosine": 0.6})
    assert sizes(placed, "person") == [1, 2]


def test_persons_are_the_same_whatever_the_size_of_a_block_of_cosines(monkeypatch):
    clips = of_faces(np.random.default_rng(0).normal(size=(6, 64))[np.arange(24) % 6])
    placed = place(clips, [], **SHARES)
    assert sizes(placed, "person") == [4] * 6
    monkeypatch.setattr(splitting, "_BLOCK_ROWS", 4)
    assert place(clips, [], **SHARES) == placed


def test_thousands_of_people_linked_by_doubtful_pairs_are_not_one_person():
    clips = of_faces(np.random.default_rng(0).normal(size=(4500, 24)))  # each is like a few others: one chain of most
    placed = place(clips, [], **SHARES | {"same_person_cosine": 0.6})
    assert sizes(placed, "person")[-1] < 10
    assert place(clips[::-1], [], **SHARES | {"same_person_cosine": 0.6}) == placed


def test_one_person_of_more_tracks_than_have_their_distances_written_out_stays_one(monkeypatch):
    monkeypatch.setattr(splitting, "_MAX_DISTANCES", 0)
    alike = np.ones(8) + 0.5 * np.random.default_rng(0).normal(size=(400, 8))
    assert sizes(place(of_faces(alike), [], **SHARES), "person") == [400]


@pytest.mark.parametrize("seed", range(8))
def test_persons_are_the_same_whether_distances_are_written_out_or_not(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    clips = of_faces(np.concatenate([np.ones(12) + 0.4 * rng.normal(size=(40, 12)), rng.normal(size=(600, 12))]))
    written_out = place(clips, [], **SHARES | {"same_person_cosine": 0.7})
    assert sizes(written_out, "person")[-1] >= 40
    monkeypatch.setattr(splitting, "_MAX_DISTANCES", 0)
    assert place(clips, [], **SHARES | {"same_person_cosine": 0.7}) == written_out


def hosts(n, dim=64):
    """Faces of a person each in 10 videos of `n` channels; the last looks a little like the next channel's person."""
    own = np.eye(dim)[np.arange(n).repeat(10)]
    own[9::10] = 0.75 * np.eye(dim)[:n] + 0.6 * np.eye(dim)[np.roll(np.arange(n), -1)]
    return of_faces(own, [f"c{n // 10}" for n in range(len(own))])


def test_doubtful_pairs_hold_a_small_set_together_but_not_a_large_one():
    assert sizes(place(hosts(20), [], **SHARES | {"same_person_cosine": 0.55}), "group") == [200]
    placed = place(large := hosts(60), [], **SHARES | {"same_person_cosine": 0.55})
    assert sizes(placed, "person") == [10] * 60
    assert sizes(placed, "group")[-1] <= 200 and len({(one.person, one.group) for one in placed.values()}) == 60
    assert {one.split for one in placed.values()} >= {"train", "val"}
    assert place(large[::-1], [], **SHARES | {"same_person_cosine": 0.55}) == placed


def test_two_names_for_one_person_are_held_together_before_two_people_with_one_odd_face(monkeypatch):
    odd = [unit(0.1, 0.9)]
    faces = [*([unit(0.1)] * 3), *odd, *([(0.0, 0.0, 1.0)] * 3), *([unit(1.0)] * 3)]
    monkeypatch.setattr(splitting, "_MAX_DOUBTED", 7)
    placed = list(place(of_faces(faces), [], **SHARES | {"same_person_cosine": 0.6}).values())
    assert len({one.person for one in placed}) == 3
    assert placed[0].group == placed[3].group == placed[9].group != placed[4].group


def test_parts_of_one_file_stay_together_and_no_address_holds_nothing_together():
    clips = [dataclasses.replace(member(f"v{n}"), url="talk.mp4" if n < 2 else "") for n in range(4)]
    placed = place(clips, [], **SHARES)
    groups = [placed[clip.key].group for clip in clips]
    assert groups[0] == groups[1] and len(set(groups)) == 3


def test_channels_that_differ_by_case_or_blanks_are_one():
    clips = [member(f"v{n}", channel=name) for n, name in enumerate(("Anna", " anna ", "Aaron"))]
    placed = place(clips, [(clips[1].key, clips[2].key)], **SHARES)
    assert len({one.group for one in placed.values()}) == 1


def test_a_clip_without_a_face_has_no_person_and_a_group_all_the_same():
    placed = place([member("v1"), member("v2")], [], **SHARES)
    assert {one.person for one in placed.values()} == {""} and len({one.group for one in placed.values()}) == 2


def test_shares_are_met_and_a_split_does_not_change_when_others_come():
    frames = {f"g-{n}": 100 for n in range(4000)}
    splits = assign(frames, val_share=0.1, test_share=0.05)
    counts = {name: sum(split == name for split in splits.values()) / 4000 for name in ("val", "test")}
    assert counts == {"val": pytest.approx(0.1, abs=0.015), "test": pytest.approx(0.05, abs=0.01)}
    more = assign(frames | {f"h-{n}": 100 for n in range(4000)}, val_share=0.1, test_share=0.05)
    assert all(more[group] == split for group, split in splits.items())


def of_channels(per_channel, *, parts=False):
    """Clips of 300 channels, or of parts of 300 files without one."""
    clips = []
    for n, part in ((n, part) for n in range(300) for part in range(per_channel)):
        video = Video.of(f"talk{n}.mp4", start_s=60.0 * part) if parts else Video.of(f"talk{n}-{part}.mp4")
        known = {"channel": "" if parts else f"https://example.org/@c{n}", "url": video.url}
        clips.append(Member(key=f"{video.id}-0000", video=video.id, track=0, face=(), frames=100, **known))
    return clips


@pytest.mark.parametrize("parts", [False, True], ids=["channels", "parts of files"])
def test_clips_keep_group_and_split_when_their_channel_or_file_gives_more(parts):
    before = place(of_channels(5, parts=parts), [], **SHARES)
    assert {one.split for one in before.values()} == {"train", "val", "test"}
    for n in (1, 6, 10):
        now = place(of_channels(n, parts=parts), [], **SHARES)
        assert all(now[key] == before[key] for key in now.keys() & before.keys())


def test_a_group_keeps_its_name_when_a_video_without_a_channel_or_a_later_channel_joins():
    one, again = member("v5", channel="Bees"), member("v4", channel=" BEES")
    name = place([one], [], **SHARES)[one.key].group
    for other in (again, member("v1"), member("v1", channel="cats")):
        placed = place([one, other], [(one.key, other.key)], **SHARES)
        assert placed[one.key].group == placed[other.key].group == name


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 30])
def test_a_small_set_has_a_val_if_there_are_two_groups_and_a_test_from_ten(n):
    splits = set(assign({f"g-{i}": 100 for i in range(n)}, val_share=0.05, test_share=0.05).values())
    assert splits == {"train"} | ({"val"} if n >= 2 else set()) | ({"test"} if n >= 10 else set())


@pytest.mark.parametrize("frames", [1_500, 100_000], ids=["a share and a half", "most of all"])
def test_a_group_larger_than_a_share_is_trained_on(frames):
    for name in (f"g-{n}" for n in range(50)):
        splits = assign({name: frames} | {f"h-{i}": 100 for i in range(85)}, val_share=0.1, test_share=0.1)
        assert splits[name] == "train"


def test_a_group_of_more_than_half_of_all_frames_is_never_moved_into_a_val():
    for n in range(20):
        splits = assign({f"a-{n}": 1000, f"b-{n}": 100, f"c-{n}": 90}, val_share=0.05, test_share=0.05)
        assert splits[f"a-{n}"] == "train"
        two = assign({f"a-{n}": 1000, f"b-{n}": 10}, val_share=0.05, test_share=0.4)  # with the small one in test too
        assert two[f"a-{n}"] == "train"


def test_a_share_of_nothing_makes_no_split():
    frames = {f"g-{n}": 100 for n in range(20)}
    assert set(assign(frames, val_share=0.0, test_share=0.0).values()) == {"train"}


def test_groups_that_ship_nothing_do_not_count_as_a_val():
    splits = assign({"a": 100, "b": 100} | {f"empty-{n}": 0 for n in range(100)}, val_share=0.1, test_share=0.1)
    assert sorted((splits["a"], splits["b"])) == ["train", "val"]


def test_a_thousand_persons_are_found_in_four_videos_each():
    rng = np.random.default_rng(0)
    people = rng.normal(size=(1000, 128)).astype(np.float32)
    faces = (np.repeat(people, 4, axis=0) + 0.3 * rng.normal(size=(4000, 128))).tolist()
    clips = [
        Member(key=f"v{n:06d}-0000", video=f"v{n:06d}", channel="", track=0, face=tuple(one), frames=700)
        for n, one in enumerate(faces)
    ]
    placed = place(clips, [], **SHARES)
    assert len({one.person for one in placed.values()}) == 1000
