"""What is spared is what the policy drops anyway, whatever language will be heard."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.records import Clip, Clips, Piece, Speeches
from stages.judge import UNMEASURED, judge
from stages.policies import PAPER, POLICIES, ForLanguage, Policy
from stages.spare import BY_SYNC, BY_TRACK, loosest, policy_of, useless
from tests.stages.measured import clip, measured, speech, sync


def spared(of: Clip) -> Piece:
    """The piece that was not cut into this clip."""
    return Piece(**{f.name: getattr(of, f.name) for f in dataclasses.fields(Piece)})


def known_before_the_cut(one):
    return dataclasses.replace(one, syncs=None, speeches=None, identities=None)


EXCEPTIONS = tuple(
    ForLanguage(language, limit, value)
    for language in ("zh", "th")
    for limit, value in (
        ("min_face_px", 60.0),
        ("max_yaw_deg", 80.0),
        ("max_yaw_deg", None),
        ("min_detector_score", 0.5),
    )
)

CLIPS = st.builds(
    clip,
    st.just("v0"),
    face_px=st.floats(20, 300),
    face_share=st.floats(0.05, 1.0),
    score=st.floats(0.4, 1.0),
    detected_share=st.floats(0.5, 1.0),
    yaw_p95_deg=st.floats(0, 90),
    sharpness=st.floats(0, 200),
    motion=st.floats(0, 3),
    still_s=st.floats(0, 2),
    filled_share=st.floats(0, 0.5),
)


@given(of=CLIPS, policy=st.sampled_from(sorted(POLICIES)), language=st.sampled_from(["zh", "de", None]))
@settings(max_examples=200, deadline=None)
def test_what_a_piece_breaks_the_policy_drops_and_what_it_keeps_is_not_spared(of, policy, language):
    policy = POLICIES[policy]
    one = measured(clips=(of,), language=language)
    early = policy_of(loosest(policy, BY_TRACK), BY_TRACK)
    (verdict,) = judge([one], policy)
    by_track = {"too_short", "face_too_small", "face_too_large", "off_frame", "face_lost", "face_doubtful", "yaw",
                "pitch", "roll", "blurred", "dark", "bright", "still_face", "frozen", "filled",
                "several_faces"}  # fmt: skip
    broken = by_track & {receipt.rule for receipt in verdict.receipts}
    assert bool(useless(known_before_the_cut(one), early)) == bool(broken)


def test_the_most_patient_language_says_what_is_spared():
    by_language = (ForLanguage("zh", "min_confidence", 2.0), ForLanguage("th", "max_yaw_deg", None))
    found = dict(loosest(dataclasses.replace(PAPER, by_language=by_language), (*BY_TRACK, *BY_SYNC)))
    assert found["min_confidence"] == 2.0 and found["max_offset_frames"] == 1.0
    assert "max_yaw_deg" not in found and found["max_roll_deg"] == PAPER.max_roll_deg


def test_where_languages_differ_on_what_is_a_face_their_number_spares_nothing():
    plain = dict(loosest(PAPER, BY_TRACK))
    differing = dataclasses.replace(PAPER, by_language=(ForLanguage("zh", "min_detector_score", 0.5),))
    assert plain["max_other_faces"] == 0 and "max_other_faces" not in dict(loosest(differing, BY_TRACK))


@given(of=CLIPS, exceptions=st.lists(st.sampled_from(EXCEPTIONS), unique_by=lambda one: (one.language, one.limit)))
@settings(max_examples=200, deadline=None)
def test_no_language_would_have_kept_what_is_spared_where_none_was_stated(of, exceptions):
    policy = dataclasses.replace(PAPER, by_language=tuple(exceptions))
    known = known_before_the_cut(measured(clips=(of,), language=None))
    if useless(known, policy_of(loosest(policy, BY_TRACK), BY_TRACK)):
        for heard in ("de", "zh", "th"):
            (verdict,) = judge(
                [measured(clips=(of,), language=None, speeches=(speech("v0-0000", language=heard),))], policy
            )
            assert not verdict.kept


@pytest.mark.parametrize(("name", "names"), [("min_speech_share", BY_SYNC), ("min_confidence", BY_TRACK)])
def test_only_limits_that_a_stage_can_know_are_taken(name, names):
    with pytest.raises(ValueError, match=f"spare: no limit '{name}' here, only {names[0]}"):
        policy_of(((name, 0.3),), names)


def test_what_was_not_measured_spares_nothing():
    one = measured(clips=(clip("v0", sharpness=float("nan")),))
    assert not useless(one, policy_of((("min_sharpness", 20.0),), BY_TRACK))
    assert not useless(dataclasses.replace(one, syncs=None), policy_of((("min_confidence", 3.0),), BY_SYNC))


def test_a_limit_that_is_not_named_spares_nothing():
    one = known_before_the_cut(measured(clips=(clip("v0", face_px=10.0, motion=0.0),)))
    assert useless(one, policy_of((("min_face_px", 60.0),), BY_TRACK)) == {"v0-0000"}
    assert not useless(one, policy_of((("min_sharpness", 1.0),), BY_TRACK))


def test_a_piece_that_was_not_cut_has_the_receipts_of_what_it_broke():
    bad = clip("v0", face_px=40.0, motion=0.0)
    whole = measured(clips=(bad,))
    cut = dataclasses.replace(whole, clips=Clips(items=(), spared=(spared(bad),)))
    for one in (whole, known_before_the_cut(cut)):
        (verdict,) = judge([one], PAPER)
        assert [receipt.rule for receipt in verdict.receipts] == ["face_too_small", "still_face"]
        assert (verdict.key, verdict.kept) == ("v0-0000", False)


@pytest.mark.parametrize("policy", [PAPER, Policy(min_confidence=None, max_offset_frames=None, max_drift_frames=None)])
def test_under_a_policy_that_would_have_it_a_piece_that_was_not_cut_is_missing_and_nothing_else(policy):
    cut = dataclasses.replace(measured(), clips=Clips(items=(), spared=(spared(clip("v0")),)))
    (verdict,) = judge([known_before_the_cut(cut)], policy)
    assert [(one.rule, one.value, one.margin) for one in verdict.receipts] == [("not_cut", UNMEASURED, -1.0)]


@pytest.mark.parametrize(("policy", "rules"), [("paper", ["offset"]), ("latentsync", ["not_heard"])])
def test_what_was_not_heard_since_its_sync_was_bad_is_dropped_for_that_or_under_another_policy_missing(policy, rules):
    one = dataclasses.replace(
        measured(clips=(clip("v0", n_frames=250),), syncs=(sync("v0-0000", offset_frames=4),)),
        speeches=Speeches(items=(), model="m"),
    )
    (verdict,) = judge([one], POLICIES[policy])
    assert [receipt.rule for receipt in verdict.receipts] == rules and not verdict.kept
