"""Judging tells `place` whose a clip is, how much of it ships and how the policy splits; `test_split` has the rest."""

import dataclasses

import pytest

from stages.judge import judge
from stages.policies import PAPER, Policy
from tests.stages.measured import clip, face, identity, measured


def on_site(video, **known):
    """A video with a page, of which the manifest states no channel."""
    one = measured(video)
    return dataclasses.replace(one, source=dataclasses.replace(one.source, extractor="youtube", **known))


def test_parts_of_one_page_share_a_group_though_its_address_is_spelled_in_two_ways():
    pages = []
    for video, url in (("v2", "https://youtu.be/abc"), ("v3", "https://www.youtube.com/watch?v=abc")):
        one = on_site(video, page_url="https://www.youtube.com/watch?v=abc")
        pages.append(dataclasses.replace(one, video=dataclasses.replace(one.video, url=url)))
    first, second = judge(pages, PAPER)
    assert first.group == second.group and first.person != second.person


def test_videos_of_one_uploader_share_a_group_though_no_manifest_states_a_channel():
    pages = (on_site(video, page_url=f"https://a.tv/{video}", uploader_url="https://a.tv/bo") for video in ("v0", "v1"))
    first, second = judge(pages, PAPER)
    assert first.group == second.group and first.person != second.person


def test_a_group_is_as_large_as_what_ships_of_it():
    copied = [
        measured(v, identities=(dataclasses.replace(identity("same"), key=f"{v}-0000"),)) for v in ("v0", "v1", "v2")
    ]
    larger = measured("v3", clips=(clip("v3", n_frames=250),))  # than one of the copies, not than three
    kept = {verdict.video: verdict.split for verdict in judge([*copied, larger], PAPER) if verdict.kept}
    assert kept == {"v0": "val", "v3": "train"}


@pytest.mark.parametrize(("cosine", "n_persons"), [(0.42, 1), (0.99, 2)])
def test_the_policy_says_how_alike_two_views_of_one_person_are(cosine, n_persons):
    views = (measured(f"v{n}", identities=(identity(f"v{n}-0000", face=face(1, noise=0.8, seed=n)),)) for n in range(2))
    verdicts = judge(views, dataclasses.replace(PAPER, same_person_cosine=cosine))
    assert len({verdict.person for verdict in verdicts}) == n_persons


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_gets_the_share_that_is_asked_for_it_and_one_without_a_share_gets_none(split):
    shares = {"val_share": 0.0, "test_share": 0.0, f"{split}_share": 0.4}
    verdicts = judge((measured(f"v{n}") for n in range(12)), dataclasses.replace(PAPER, **shares))
    assert {verdict.split for verdict in verdicts} == {"train", split}


@pytest.mark.parametrize(("val_share", "test_share"), [(0.5, 0.5), (-0.1, 0.3), (0.3, -0.1)])
def test_shares_below_nothing_or_that_leave_nothing_to_train_on_are_refused(val_share, test_share):
    with pytest.raises(ValueError, match="must leave room for train"):
        Policy(val_share=val_share, test_share=test_share)
