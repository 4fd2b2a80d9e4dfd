"""What goes as a copy of what is to be forgotten, and what stays though a clip of it is one."""

import pytest

from pipeline import forget as forgetting
from stages.policies import LATENTSYNC, PAPER
from tests.stages.measured import identity, random_hash


@pytest.mark.parametrize("policy", [PAPER, LATENTSYNC], ids=["drops copies", "ships copies"])
def test_a_copy_of_a_copy_goes_too_under_any_policy(policy):
    """b is like a and like c, which are not alike; d is like none."""
    picture, sound = int(random_hash("picture", 128), 16), random_hash("sound", 256)
    changed = {"a": "0000000000000000", "b": "0fff000000000000", "c": "0fff0fff00000000"}  # of each of eight pictures
    shown = [
        identity(f"{video}-0000", picture_hash=f"{picture ^ int(bits * 8, 16):0128x}", sound_hash=sound)
        for video, bits in changed.items()
    ]
    assert with_copies({"a"}, [[*shown, identity("d-0000")]], policy) == ({"a", "b", "c"}, {})


def with_copies(asked, versions, policy=PAPER):
    """As of clips that these versions have measured."""
    prints = {}
    for shown in versions:
        for video, lengths in forgetting._lengths(shown).items():
            prints.setdefault(video, []).append(lengths)
    return forgetting._with_copies(asked, prints, policy)


def shown(video, *clips):
    """Clips of a video, each of what it shows."""
    return [
        identity(f"{video}-{n:04d}", picture_hash=random_hash("p" + of, 128), sound_hash=random_hash("s" + of, 256))
        for n, of in enumerate(clips)
    ]


def episode(video):
    return shown(video, "greeting", *(f"{video}{n}" for n in range(9)))


def test_a_greeting_that_episodes_share_takes_none_of_them_with_another_nor_does_a_video_of_it_alone():
    clips = [*episode("e1"), *episode("e2"), *episode("e3"), *shown("g", "greeting")]
    assert with_copies({"e1"}, [clips]) == ({"e1", "g"}, {"e2": 0.1, "e3": 0.1})


def test_a_greeting_of_hundreds_of_episodes_takes_a_video_of_it_alone_and_names_all_others():
    clips = [one for n in range(250) for one in shown(f"e{n:03d}", "greeting", f"x{n}", f"y{n}", f"z{n}")]
    goes, alike = with_copies({"e120"}, [[*clips, *shown("g", "greeting")]])
    assert goes == {"e120", "g"}
    assert alike == {f"e{n:03d}": 0.25 for n in range(250) if n != 120}


def test_what_holds_half_of_what_is_asked_for_goes_and_what_else_it_holds_makes_no_copies():
    """A compilation of three, of one of which a clip of four was cut out of it."""
    clips = [*shown("a", *"1234"), *shown("b", *"5678"), *shown("all", *"1235678"), *shown("c", "1", *"xyz")]
    assert with_copies({"a"}, [clips]) == ({"a", "all"}, {"c": 0.25})


def test_half_of_what_any_version_has_measured_makes_a_copy():
    """The other version has found more in both."""
    versions = [shown("a", "1"), [*shown("a", "1", "2", "3"), *shown("b", "1")], shown("b", "4", "5", "6")]
    assert with_copies({"a"}, versions) == ({"a", "b"}, {})


def test_a_hundred_copies_are_found_though_their_measurements_lie_in_the_table_too():
    clips = [clip for n in range(101) for clip in shown(f"v{n:03d}", "one")]
    assert len(with_copies({"v000"}, [clips, clips])[0]) == 101


def test_what_stays_with_a_clip_of_what_goes_is_named_with_the_way_to_take_it_out():
    lines = forgetting.Gone(dry=False, videos=["e1"], alike={"e2": 0.1, "e3": 0.25}).lines()
    assert lines[1] == (
        "stay, though so much of their clips are copies: e2 (10 %), e3 (25 %); to remove them: forget video:e2 video:e3"
    )
