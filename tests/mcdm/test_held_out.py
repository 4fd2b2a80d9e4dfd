"""What training never sees."""

import json
from dataclasses import dataclass

import pytest

from mcdm.held_out import SHARE, choose, divide, write_division
from mcdm.shards import Clip


@dataclass
class Listed:
    """Shards as far as a division looks at them."""

    clips: list[Clip]
    url: str = "here"

    def split(self, *names):
        return [clip for clip in self.clips if clip.split in names]


def clip(video, person, number=0, split="train", n_frames=100):
    return Clip(
        key=f"{video}-{number:04d}",
        shard="s.tar",
        split=split,
        video=video,
        person=person,
        n_frames=n_frames,
        contiguous_with_prev=False,
        members={},
    )


def names(clips):
    return {(one.video, one.person) for one in clips}


def test_splits_are_held_out_where_there_are_some():
    found = choose(Listed([clip("a", "p"), clip("b", "q", split="val"), clip("c", "r", split="test")]))
    assert (names(found.train), names(found.held_out), found.by) == ({("a", "p")}, {("b", "q"), ("c", "r")}, "split")


def test_else_groups_are_and_neither_person_nor_video_lies_on_both_sides():
    clips = [clip(f"v{i}", f"p{i // 2}", j) for i in range(40) for j in range(2)] + [clip("v0", "p7", 5)]
    found = choose(Listed(clips))
    assert found.by == "group" and found.train and found.held_out
    for name in ("video", "person"):
        assert not {getattr(one, name) for one in found.train} & {getattr(one, name) for one in found.held_out}
    assert len(found.held_out) <= SHARE * len(clips)
    assert sorted(one.key for one in (*found.train, *found.held_out)) == sorted(one.key for one in clips)
    assert choose(Listed(clips[::-1])).held_out == found.held_out[::-1], "a function of the clips, not of their order"


def test_a_group_larger_than_the_share_is_trained_on_unless_there_is_nothing_smaller():
    large = [clip("a", "p", i) for i in range(20)]
    assert names(choose(Listed([*large, clip("b", "q")])).held_out) == {("b", "q")}
    assert names(choose(Listed([*large, *(clip("b", "q", i) for i in range(10))])).held_out) == {("b", "q")}


def test_unknown_people_do_not_hang_together():
    found = choose(Listed([clip(f"v{i}", "") for i in range(16)]))
    assert found.by == "group" and len(found.held_out) == 2


def test_where_all_people_hang_together_whole_videos_are_held_out_and_a_single_one_is_refused():
    found = choose(Listed([clip(f"v{i}", "p") for i in range(10)]))
    assert found.by == "video" and len(found.held_out) == 1
    with pytest.raises(ValueError, match="a single video, and no clips of splits val or test: nothing to hold out"):
        choose(Listed([clip("v", "p", i) for i in range(5)]))


def test_a_run_remembers_what_it_held_out_when_the_shards_change(tmp_path):
    clips = [clip(f"v{i}", f"p{i}") for i in range(16)]
    first = divide(Listed(clips), tmp_path)
    write_division(tmp_path, first)
    grown = Listed([*clips, *(clip(f"w{i}", f"q{i}", split="val") for i in range(4))])
    again = divide(grown, tmp_path)
    assert again.held_out == first.held_out and again.by == "group"
    write_division(tmp_path, choose(grown))
    assert json.loads((tmp_path / "held_out.json").read_text())["clips"] == [one.key for one in first.held_out]
    with pytest.raises(ValueError, match="other has none of the 2 clips that"):
        divide(Listed([clip("x", "y")], url="other"), tmp_path)


@pytest.mark.parametrize("split", ["", "all", "train"])
@pytest.mark.parametrize("people", [12, 1])
def test_a_run_that_goes_on_trains_on_what_it_began_with_whatever_the_split_is_called(tmp_path, split, people):
    shards = Listed([clip(f"v{i}", f"p{i % people}", split=split) for i in range(24)])
    first = divide(shards, tmp_path)
    write_division(tmp_path, first)
    assert divide(shards, tmp_path) == first and len(first.train) > 20


def test_new_clips_of_a_held_out_person_or_video_are_not_trained_on(tmp_path):
    clips = [clip(f"v{i}", f"p{i}") for i in range(16)]
    first = divide(Listed(clips), tmp_path)
    write_division(tmp_path, first)
    kept = first.held_out[0]
    near = [clip("new", kept.person), clip(kept.video, "", 7), clip("w", "q", split="val")]
    far = [clip("other", ""), clip("another", "q")]
    again = divide(Listed([*clips, *near, *far]), tmp_path)
    assert again.train == [*first.train, *far] and again.held_out == first.held_out


def test_new_clips_of_people_that_the_splits_moved_to_train_are_not_trained_on(tmp_path):
    """A group is placed anew when it grows together with another."""
    stays = [clip("a", "p"), clip("b", "q", split="test"), clip("b2", "q"), clip("x", "", split="extra")]
    first = divide(Listed([*stays, clip("c", "r", split="val"), clip("d", "", split="val")]), tmp_path)
    write_division(tmp_path, first)
    moved = [clip("c", "r"), clip("d", "")]
    near = [clip("c", "", 1), clip("c2", "r"), clip("d", "s", 1)]
    far = [clip("e", ""), clip("f", "t")]
    again = divide(Listed([*stays, *moved, *near, *far]), tmp_path)
    assert again.train == [*first.train, *far] and names(again.held_out) == names(first.held_out)


def test_a_run_goes_on_with_splits_that_share_a_person_as_it_began(tmp_path):
    shards = Listed([clip("a", "p"), clip("b", "p", split="val"), clip("b", "p", 1), clip("x", "q", split="extra")])
    first = divide(shards, tmp_path)
    write_division(tmp_path, first)
    assert divide(shards, tmp_path) == first and len(first.train) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [('{"clip', "truncated"), ('{"by": "x"}', "missing required field `clips`"), ('["a"]', "Expected `object`")],
)
def test_a_damaged_division_is_named_with_what_is_wrong(tmp_path, content, says):
    (tmp_path / "held_out.json").write_text(content)
    with pytest.raises(ValueError, match=rf"held_out\.json: .*{says}"):
        divide(Listed([clip("a", "p")]), tmp_path)
