"""Clips that a later stage has never measured are in no data set, whatever the policy asks."""

import dataclasses

import pytest

from manifests.records import Speeches
from pipeline.figures import collect
from stages.calibrate import calibrate
from stages.judge import UNMEASURED, judge, readings, tightest
from stages.policies import LATENTSYNC, PAPER, POLICIES
from tests.stages.measured import clip, identity, measured, speech, sync, track

WITHOUT = {
    "sync": {"syncs": None, "speeches": None, "identities": None},
    "speech": {"speeches": None, "identities": None},
    "identity": {"identities": None},
}
ALL_OFF = dataclasses.replace(
    LATENTSYNC,
    by_language=(),
    **{f.name: None for f in dataclasses.fields(LATENTSYNC) if f.name.startswith(("min_", "max_"))},
)


def half_way(stage, video="v0", **known):
    return dataclasses.replace(measured(video, **known), **WITHOUT[stage])


@pytest.mark.parametrize("policy", [*POLICIES.values(), ALL_OFF], ids=lambda policy: policy.name)
@pytest.mark.parametrize("stage", WITHOUT)
def test_a_clip_that_waits_for_a_stage_is_dropped_by_every_policy_with_the_name_of_that_stage(stage, policy):
    one = half_way(stage, clips=(clip("v0", n_frames=150),))
    (verdict,) = judge([one], policy)
    assert [(one.rule, one.value) for one in verdict.receipts] == [(UNMEASURED, stage)]
    assert not verdict.kept and verdict.person == verdict.group == verdict.split == ""


@pytest.mark.parametrize(
    "ended", [{"failed": ("sync", "quarantined", "died")}, {"rejected": ("sync", "too_short", {})}]
)
def test_one_that_was_given_up_or_rejected_later_on_is_dropped_alike(ended):
    (verdict,) = judge([half_way("sync", **ended)], ALL_OFF)
    assert [(one.rule, one.value) for one in verdict.receipts] == [(UNMEASURED, "sync")]


def test_what_is_known_to_be_wrong_with_it_is_told_first():
    wrong = half_way("speech", tracks=(track(face_px=40.0),), syncs=(sync("v0-0000", confidence=0.5),))
    (verdict,) = judge([wrong], PAPER)
    assert [one.rule for one in verdict.receipts] == ["face_too_small", "low_sync", UNMEASURED]


def test_a_rule_that_it_is_not_known_to_break_is_neither_read_nor_near():
    one = half_way("sync")
    (figure,) = collect([one], judge([one], PAPER), PAPER).judged
    assert {"low_sync", "no_speech", "unsteady_identity"}.isdisjoint(one.rule for one in readings(figure.clip, PAPER))
    (rule,) = collect([one], judge([one], PAPER), PAPER).rules
    assert (rule.name, rule.alone, rule.alone_hours) == (UNMEASURED, 0, 0.0), "no threshold would bring it back"
    assert figure.decisive == UNMEASURED and tightest(figure.clip, PAPER)[1] > 0


def test_one_that_a_cascade_has_spared_the_hearing_is_told_so_though_its_video_waits():
    one = half_way("identity", clips=(clip("v0", 0), clip("v0", 1, start_s=5.0)))
    one = dataclasses.replace(one, speeches=Speeches(items=(speech("v0-0001"),), model=""))
    assert [[receipt.rule for receipt in verdict.receipts] for verdict in judge([one], PAPER)] == [
        ["not_heard"],
        [UNMEASURED],
    ]


def test_people_and_copies_are_those_of_measured_clips_alone():
    """A waiting clip would be a person of its own in any split, and the copy of it that was measured a second one."""
    known = [measured(f"v{n}", person=n % 3, channel=f"c{n}") for n in range(12)]
    waits = [half_way("identity", f"w{n}", person=n % 3, channel=f"d{n}") for n in range(12)]
    alone = judge(known, ALL_OFF)
    assert len({one.person for one in alone if one.kept}) == 3
    assert {one for one in judge([*known, *waits], ALL_OFF) if one.kept} == set(alone)


def test_the_numbers_of_a_report_agree_on_what_waits_and_what_was_dropped():
    waits = [half_way("speech", f"w{n}") for n in range(3)]
    kept = measured("v0")
    bad = measured("v1", syncs=(sync("v1-0000", confidence=1.0),), identities=(identity("v1-0000", 7),))
    known = [kept, bad, *waits]
    figures = collect(known, judge(known, PAPER), PAPER)
    steps = {step.name: step for step in figures.steps}
    assert (steps["speech"].entered, steps["speech"].passed, steps["speech"].waiting) == (5, 2, 3)
    assert (steps["judge"].entered, steps["judge"].passed, steps["judge"].rejected) == (5, 1, 4)
    assert dict(steps["judge"].reasons) == {UNMEASURED: 3, "low_sync": 1}
    assert {rule.name: (rule.first, rule.any) for rule in figures.rules} == {UNMEASURED: (3, 3), "low_sync": (1, 1)}


def test_clips_that_wait_are_not_calibrated_with():
    known = [measured(f"v{n}", person=n, syncs=(far(f"v{n}-0000"),)) for n in range(4)]
    waits = [half_way("speech", f"w{n}", syncs=(far(f"w{n}-0000"),)) for n in range(4)]
    assert calibrate([*known, *waits], PAPER) == calibrate(known, PAPER)


def far(key):
    return dataclasses.replace(sync(key), distances=(9.0,) * 15 + (6.5,) + (9.0,) * 15)
