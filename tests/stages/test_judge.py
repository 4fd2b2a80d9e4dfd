"""Every clip gets a verdict, every dropped one the reasons, whatever order the videos come in."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.judge import RULES, UNMEASURED, judge
from stages.policies import LATENTSYNC, PAPER, POLICIES, STRICT, ForLanguage, Policy
from tests.stages.measured import clip, face, identity, measured, random_hash, source, speech, sync, track


def only(verdicts):
    (verdict,) = verdicts
    return verdict


def jumping(at_frames, clearness):
    """A clip of which the last of three windows reads another offset, so clearly."""
    curve = {"curve_offset_frames": (0, 1, at_frames), "curve_confidence": (7.0, 6.5, clearness)}
    return dataclasses.replace(sync("v0-0000"), **curve)


def rules(verdict):
    return [receipt.rule for receipt in verdict.receipts]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_good_clip_passes_every_named_policy(policy):
    verdict = only(judge([measured(clips=(clip("v0", n_frames=250),))], policy))
    assert verdict.kept and verdict.receipts == () and verdict.split == "train" and verdict.person


BAD = {
    "too_short": {"clips": (clip("v0", n_frames=50),)},
    "face_too_small": {"tracks": (track(face_px=40.0),)},
    "face_too_large": {"tracks": (track(face_share=0.95),)},
    "off_frame": {"tracks": (track(inside_share=0.5),)},
    "face_lost": {"tracks": (track(detected_share=0.5),)},
    "face_doubtful": {"tracks": (track(score=0.55),)},
    "yaw": {"tracks": (track(yaw_p95_deg=80.0),)},
    "pitch": {"tracks": (track(pitch_deg=50.0),)},
    "roll": {"tracks": (track(roll_deg=50.0),)},
    "blurred": {"tracks": (track(sharpness=1.0),)},
    "dark": {"tracks": (track(exposure=5.0),)},
    "bright": {"tracks": (track(exposure=250.0),)},
    "still_face": {"tracks": (track(motion=0.0),)},
    "low_detail": {"clips": (clip("v0", effective_face_px=28.0),)},
    "frozen": {"clips": (clip("v0", still_s=2.0),)},
    "filled": {"clips": (clip("v0", filled_share=0.25),)},
    "several_faces": {"clips": (clip("v0", others_in_view=(1,)),), "tracks": (track(), track(1))},
    "no_speech": {"speeches": (speech("v0-0000", speech_share=0.0, verdict="", language=""),)},
    "noisy": {"speeches": (speech("v0-0000", snr_db=4.0),)},
    "second_voice": {"speeches": (speech("v0-0000", other_voice_share=0.4),)},
    "wrong_language": {"speeches": (speech("v0-0000", language="en", verdict="other"),)},
    "mixed_language": {"speeches": (speech("v0-0000", verdict="mixed"),)},
    "language_unsure": {"speeches": (speech("v0-0000", verdict="unsure"),)},
    "garbled": {"speeches": (speech("v0-0000", avg_logprob=-3.0),)},
    "repetitive": {"speeches": (speech("v0-0000", text="Vielen Dank. " * 8),)},
    "too_few_words": {"speeches": (speech("v0-0000", text="Ja.", speech_s=28.5),)},
    "credits": {"speeches": (speech("v0-0000", text="Guten Tag. Untertitel der Amara.org-Community"),)},
    "low_sync": {"syncs": (sync("v0-0000", confidence=1.0),)},
    "far_sync": {},
    "offset": {"syncs": (sync("v0-0000", offset_frames=-4),)},
    "sync_jump": {"syncs": (jumping(8, clearness=5.0),)},
    "drift": {"syncs": (sync("v0-0000", drift=-30.0),)},
    "text_in_view": {"identities": (identity("v0-0000", text_share=0.05),)},
    "unsteady_identity": {"identities": (identity("v0-0000", spread=0.1),)},
    "licence": {},
}


@pytest.mark.parametrize("rule", [rule.rule for rule in RULES])
def test_each_rule_alone_drops_a_clip_with_its_receipt(rule):
    policy = dataclasses.replace(PAPER, allow_unsure_language=False, max_distance=6.0 if rule == "far_sync" else None)
    policy = dataclasses.replace(
        policy, max_filled_share=0.15, min_snr_db=10.0, max_text_share=0.01, max_other_voice_share=0.1
    )
    if rule == "licence":
        policy = dataclasses.replace(policy, licences=("public domain", "CC0"))
    verdict = only(judge([measured(**BAD[rule])], policy))
    assert rules(verdict) == [rule] and not verdict.kept and verdict.split == ""
    assert verdict.receipts[0].margin < 0


def test_where_nobody_speaks_nothing_is_noisy_and_nobody_talks_beside_it():
    unheard = {"speech_share": 0.0, "speech_s": 0.0, "snr_db": None, "other_voice_share": None}
    silent = speech("v0-0000", **unheard, verdict="", language="", text="", words=())
    verdict = only(judge([measured(clips=(clip("v0", n_frames=250),), speeches=(silent,))], STRICT))
    assert rules(verdict) == ["no_speech"]


def test_a_receipt_holds_the_value_the_limit_and_what_was_missing_to_it():
    receipt = only(judge([measured(syncs=(sync("v0-0000", confidence=2.25),))], PAPER)).receipts[0]
    assert (receipt.rule, receipt.value, receipt.limit, receipt.margin) == ("low_sync", 2.25, 3.0, -0.75)


def test_all_broken_rules_are_listed_in_the_order_of_the_rules():
    one = measured(tracks=(track(face_px=40.0, motion=0.0),), syncs=(sync("v0-0000", confidence=0.5),))
    assert rules(only(judge([one], PAPER))) == ["face_too_small", "still_face", "low_sync"]


def test_what_could_not_be_read_is_not_good_enough_where_a_limit_is_set():
    """By a stage that looked at the video: of one that did not, `test_judge_unmeasured` has it."""
    one = measured(syncs=(sync("v0-0001"),))
    verdict = only(judge([one], PAPER))
    assert rules(verdict) == ["low_sync", "offset", "sync_jump", "drift"]
    assert all(receipt.value == UNMEASURED and receipt.margin < 0 for receipt in verdict.receipts)
    off = ("min_confidence", "max_offset_frames", "max_jump_frames", "max_drift_frames")
    without = dataclasses.replace(PAPER, by_language=(), **dict.fromkeys(off))
    assert only(judge([one], without)).kept


def test_a_reading_that_is_no_number_counts_as_not_measured():
    verdict = only(judge([measured(syncs=(sync("v0-0000", confidence=float("nan")),))], PAPER))
    assert verdict.receipts[0].value == UNMEASURED


@pytest.mark.parametrize(("at_frames", "clearness"), [(2, 7.0), (-12, 3.4), (15, 2.0)])
def test_a_window_that_is_near_or_reads_noise_is_no_jump(at_frames, clearness):
    assert only(judge([measured(syncs=(jumping(at_frames, clearness),))], PAPER)).kept


def test_a_window_earlier_than_its_clip_is_a_jump_as_a_later_one_is():
    assert rules(only(judge([measured(syncs=(jumping(-8, clearness=3.6),))], PAPER))) == ["sync_jump"]


def test_a_jump_is_told_from_the_clip_s_own_offset_and_counts_where_the_window_alone_would_be_kept():
    late = dataclasses.replace(jumping(1, clearness=2.9), offset_frames=-2, confidence=3.5)
    lenient = dataclasses.replace(PAPER, max_offset_frames=2)
    receipt = only(judge([measured(syncs=(late,))], lenient)).receipts[0]  # the window at 1 frame, of 6.5
    assert (receipt.rule, receipt.value, receipt.limit, receipt.margin) == ("sync_jump", 3.0, 2.0, -1.0)
    low = dataclasses.replace(late, curve_confidence=(2.9, 2.9, 2.9))
    assert only(judge([measured(syncs=(low,))], lenient)).kept
    assert not only(judge([measured(syncs=(low,), language="zh")], lenient)).kept


@pytest.mark.parametrize(("drift", "least"), [(60.0, 0.0), (6.0, 6.0)], ids=["of which none is sure", "over 4 s"])
def test_a_drift_counts_as_far_as_it_is_sure_and_from_end_to_end_of_its_clip(drift, least):
    one = dataclasses.replace(sync("v0-0000", drift=drift), drift_least_frames_per_min=least)
    assert only(judge([measured(syncs=(one,))], PAPER)).kept


def test_a_language_may_have_its_own_limit():
    def spoken(language):
        return measured(language=language, syncs=(sync("v0-0000", confidence=2.5),))

    assert not only(judge([spoken("de")], PAPER)).kept
    assert only(judge([spoken("zh-CN")], PAPER)).kept


@pytest.mark.parametrize("tag", ["zh", "cmn", "zho", "chi", "ZH_Hans", "cmn-Hans-CN"])
def test_a_limit_by_language_holds_for_every_code_of_it(tag):
    assert PAPER.limit("min_confidence", tag) == 2.0
    assert Policy(by_language=(ForLanguage(tag, "min_confidence", 1.0),)).limit("min_confidence", "zh") == 1.0


@pytest.mark.parametrize("tag", [None, "und", "mul", "zxx"])
def test_where_the_expected_language_says_nothing_the_one_heard_chooses_the_limit(tag):
    heard = (speech("v0-0000", language="zh", verdict=""),)
    one = measured(language=tag, syncs=(sync("v0-0000", confidence=2.5),), speeches=heard)
    assert only(judge([one], PAPER)).kept


def test_a_limit_by_language_that_is_no_limit_is_refused():
    with pytest.raises(ValueError, match="no limit 'confidence' for language 'zh'"):
        Policy(by_language=(ForLanguage("zh", "confidence", 2.0),))


def seen_with(*others, policy=PAPER):
    clips = (clip("v0", others_in_view=tuple(other.number for other in others)),)
    return only(judge([measured(clips=clips, tracks=(track(), *others))], policy))


def test_a_face_too_doubtful_to_be_kept_does_not_count_as_another_face():
    assert rules(seen_with(track(1, score=PAPER.min_detector_score))) == ["several_faces"]
    assert seen_with(track(1, score=0.54)).kept


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_face_as_doubtful_as_the_most_doubtful_of_people_who_talk_is_one_for_every_policy(policy):
    faint = track(score=0.64)  # read by SCRFD-2.5G; the real clips themselves are in test_watch_real
    assert "face_doubtful" not in rules(only(judge([measured(tracks=(faint,))], policy)))
    beside = seen_with(dataclasses.replace(faint, number=1), policy=policy)
    assert "several_faces" in rules(beside)


def test_other_faces_are_counted_at_once_and_not_one_after_the_other():
    pair = dataclasses.replace(PAPER, max_other_faces=1)
    first, second = track(1, start_frame=0, end_frame=50), track(2, start_frame=50, end_frame=90)
    assert seen_with(first, second, policy=pair).kept
    beside = seen_with(first, dataclasses.replace(second, start_frame=49), policy=pair)
    assert rules(beside) == ["several_faces"] and beside.receipts[0].value == 2


def dialogue():
    clips = (clip("v0", 0, track=0), clip("v0", 1, track=1))
    return measured(clips=clips, syncs=(sync("v0-0000", 3.5), sync("v0-0001", 8.0)))


def test_of_two_faces_seen_at_once_the_one_whose_lips_match_is_kept_and_named():
    loser, winner = judge([dialogue()], PAPER)
    assert winner.kept and rules(loser) == ["not_the_speaker"]
    assert loser.receipts[0].limit == "v0-0001" and loser.receipts[0].margin == pytest.approx(-4.5)


def test_a_policy_that_does_not_ask_for_one_speaker_keeps_both_faces():
    both = dataclasses.replace(PAPER, one_speaker=False)
    assert all(verdict.kept for verdict in judge([dialogue()], both))


def test_equal_lips_do_not_lose_both_faces():
    clips = (clip("v0", 0, track=0), clip("v0", 1, track=1))
    assert [one.kept for one in judge([measured(clips=clips)], PAPER)] == [True, False]


def test_faces_that_follow_each_other_do_not_compete():
    clips = (clip("v0", 0, track=0), clip("v0", 1, track=1, start_s=3.9))
    one = measured(clips=clips, syncs=(sync("v0-0000", 3.5), sync("v0-0001", 8.0)))
    assert all(verdict.kept for verdict in judge([one], PAPER))


@pytest.mark.parametrize(("n_frames", "kept"), [(80, True), (100, False)])
def test_a_clip_is_lost_to_a_better_one_that_is_beside_it_for_half_of_it_and_not_for_less(n_frames, kept):
    clips = (clip("v0", 0, track=0, n_frames=200), clip("v0", 1, track=1, n_frames=n_frames))
    one = measured(clips=clips, syncs=(sync("v0-0000", 6.0), sync("v0-0001", 8.0)))
    assert [verdict.kept for verdict in judge([one], PAPER)] == [kept, True]


def test_a_clip_is_lost_to_the_surest_face_beside_it_and_names_the_clip_of_it_that_is_seen_longest():
    """Beside 8 s of the first face are 8 s of the second, and of the third, which is surer, 5 s and 1 s."""
    clips = (clip("v0", 0, n_frames=200), clip("v0", 1, track=1, n_frames=200), clip("v0", 2, track=2, n_frames=125))
    clips += (clip("v0", 3, track=2, start_s=5.0, n_frames=25),)
    syncs = tuple(sync(f"v0-{n:04d}", confidence) for n, confidence in enumerate((5.0, 6.5, 9.0, 3.0)))
    receipt = judge([measured(clips=clips, syncs=syncs)], PAPER)[0].receipts[0]
    assert (receipt.rule, receipt.limit, receipt.margin) == ("not_the_speaker", "v0-0002", -3.0)


def copies_of(video, key, **known):
    return measured(
        video,
        identities=(
            identity(f"{video}-0000", 1, picture_hash=random_hash(key, 128), sound_hash=random_hash(key + "s", 256)),
        ),
        **known,
    )


def kept_copies(readings_of, policy):
    """Which of some copies stay, by video, of their lips' confidence, face, sharpness and length."""
    videos = [
        copies_of(
            video,
            "same",
            clips=(clip(video, n_frames=n_frames, effective_face_px=face_px),),
            tracks=(track(sharpness=sharpness),),
            syncs=(sync(f"{video}-0000", confidence),),
        )
        for video, (confidence, face_px, sharpness, n_frames) in readings_of.items()
    ]
    return [verdict.video for verdict in judge(videos, policy) if verdict.kept]


def test_of_near_duplicates_the_one_with_the_surest_lips_stays_and_is_named():
    first = copies_of("v1", "same", syncs=(sync("v1-0000", 5.0),))
    second = copies_of("v2", "same", syncs=(sync("v2-0000", 6.0),))
    dropped, kept = judge([first, second], PAPER)
    assert kept.kept and rules(dropped) == ["duplicate"]
    assert dropped.receipts[0].value == 0.0 and dropped.receipts[0].limit == "v2-0000"
    assert dropped.receipts[0].margin == pytest.approx(-0.25)


BETTER = {
    "clearly surer lips": ((3.4, 130.0, 150.0, 100), (3.0, 220.0, 500.0, 250)),
    "a larger face": ((2.79, 220.0, 150.0, 100), (2.85, 120.0, 500.0, 250)),
    "a sharper face": ((2.79, 219.0, 579.0, 100), (2.85, 220.0, 210.0, 250)),
    "more of it": ((2.79, 219.0, 570.0, 250), (2.85, 220.0, 579.0, 245)),
}


@pytest.mark.parametrize(("better", "worse"), BETTER.values(), ids=BETTER)
@pytest.mark.parametrize("first", ["v1", "v2"])
def test_of_near_duplicates_the_better_copy_stays_and_small_differences_mean_nothing(better, worse, first):
    policy = dataclasses.replace(PAPER, min_confidence=2.0, by_language=())
    other = "v2" if first == "v1" else "v1"
    assert kept_copies({first: better, other: worse}, policy) == [first]


@pytest.mark.parametrize("names", itertools.permutations(("v1", "v2", "v3")))
def test_a_copy_that_loses_by_its_lips_is_no_measure_of_the_others_faces(names):
    better, longer, least_sure = (9.5, 200.0, 300.0, 250), (10.0, 100.0, 300.0, 260), (8.9, 250.0, 300.0, 255)
    assert kept_copies(dict(zip(names, (better, longer, least_sure), strict=True)), PAPER) == [names[0]]


def test_a_copy_of_a_dropped_clip_is_kept():
    first = copies_of("v1", "same", tracks=(track(face_px=10.0),))
    assert [verdict.kept for verdict in judge([first, copies_of("v2", "same")], PAPER)] == [False, True]


def test_the_same_picture_with_another_voice_is_no_duplicate():
    other = measured("v2", identities=(identity("v2-0000", 1, picture_hash=random_hash("same", 128)),))
    assert all(verdict.kept for verdict in judge([copies_of("v1", "same"), other], PAPER))


@pytest.mark.parametrize(("limit", "n_kept"), [("max_picture_distance", 2), ("max_sound_distance", 1)])
def test_each_limit_on_copies_is_of_its_own_distance(limit, n_kept):
    """One bit of the eight pictures of a clip differs from its copy, none of its sound."""
    copied = [copies_of(video, "same") for video in ("v1", "v2")]
    (other,) = copied[1].identities.items
    turned = f"{int(other.picture_hash, 16) ^ 1:0128x}"
    items = (dataclasses.replace(other, picture_hash=turned),)
    copied[1] = dataclasses.replace(copied[1], identities=dataclasses.replace(copied[1].identities, items=items))
    policy = dataclasses.replace(PAPER, **{limit: 0.001})
    assert sum(verdict.kept for verdict in judge(copied, policy)) == n_kept


def test_the_licence_of_the_site_counts_before_that_of_the_manifest():
    policy = dataclasses.replace(PAPER, licences=("creative commons", "cc "))
    assert only(judge([measured()], policy)).kept
    stated = dataclasses.replace(measured(), source=source(licence="Standard YouTube License"))
    assert only(judge([stated], policy)).receipts[0].value == "Standard YouTube License"


def test_only_a_policy_that_shifts_sound_records_an_offset_to_take_out():
    one = measured(clips=(clip("v0", n_frames=250),), syncs=(sync("v0-0000", offset_frames=-3),))
    assert only(judge([one], LATENTSYNC)).shift_frames == -3
    near = measured(syncs=(sync("v0-0000", offset_frames=1),))
    assert only(judge([near], PAPER)).shift_frames == 0


def test_strict_keeps_nothing_that_paper_drops():
    worse = [
        measured(f"v{n}", (clip(f"v{n}", n_frames=250),), (track(yaw_p95_deg=5.0 * n, sharpness=20.0 * n),))
        for n in range(12)
    ]
    kept = {policy.name: {v.key for v in judge(worse, policy) if v.kept} for policy in (PAPER, STRICT)}
    assert set() < kept["strict"] < kept["paper"]


readings = st.fixed_dictionaries(
    {
        "face_px": st.sampled_from([20.0, 200.0]),
        "yaw_p95_deg": st.floats(0, 90),
        "motion": st.floats(0, 2),
        "confidence": st.floats(0, 10),
        "n_clips": st.integers(0, 3),
        "copy_of": st.integers(0, 3),
        "person": st.integers(0, 3),
        "channel": st.sampled_from(["", "a", "b"]),
        "n_tracks": st.integers(1, 2),
    }
)


def video_of(number, drawn):
    video = f"v{number}"
    clips = tuple(
        clip(video, n, track=n % drawn["n_tracks"], start_s=4.0 * (n // drawn["n_tracks"]))
        for n in range(drawn["n_clips"])
    )
    tracks = tuple(track(n, **{name: drawn[name] for name in ("face_px", "yaw_p95_deg", "motion")}) for n in range(2))
    copied = f"copy{drawn['copy_of']}"
    return measured(
        video,
        clips=clips,
        tracks=tracks,
        channel=drawn["channel"],
        syncs=tuple(sync(one.key, drawn["confidence"] + one.track) for one in clips),
        identities=tuple(
            identity(
                one.key,
                face=face(drawn["person"]),
                picture_hash=random_hash(f"{copied}{one.number}", 128),
                sound_hash=random_hash(f"{copied}{one.number}s", 256),
            )
            for one in clips
        ),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(readings, max_size=6), st.randoms(use_true_random=False))
def test_every_clip_has_one_verdict_every_dropped_one_a_receipt_and_order_means_nothing(drawn, random):
    videos = [video_of(number, one) for number, one in enumerate(drawn)]
    verdicts = judge(videos, PAPER)
    assert [verdict.key for verdict in verdicts] == sorted(one.key for v in videos for one in v.clips.items)
    for verdict in verdicts:
        assert verdict.kept == (verdict.receipts == ()) == (verdict.split != "")
        assert all(receipt.margin <= 0 for receipt in verdict.receipts)
    splits = {}
    for verdict in verdicts:
        if verdict.kept:
            assert splits.setdefault(verdict.group, verdict.split) == verdict.split
    shuffled = list(videos)
    random.shuffle(shuffled)
    assert judge(shuffled, PAPER) == verdicts
