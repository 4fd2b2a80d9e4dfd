"""What a limit on sync confidence costs is estimated without labels; here the truth is known, because it is made."""

import dataclasses

import numpy as np
import pytest

from manifests.records import Clips
from stages.calibrate import FAR_FRAMES, SPEECH_RULES, calibrate
from stages.judge import judge
from stages.policies import LATENTSYNC, PAPER
from tests.stages.measured import clip, identity, measured, speech, sync, track
from tests.stages.test_judge import BAD

UNIFORM = dataclasses.replace(PAPER, by_language=())


def reading(key, confidence, offset_frames, reach=15):
    return dataclasses.replace(sync(key, confidence, offset_frames), distances=(9.0,) * (2 * reach + 1))


def world(language, clear, n_sync, n_wrong, seed=0, edges=0):
    """Videos of two clips: in sync and read about `clear`; of other voices, at any offset, read about 1; still ones."""
    rng = np.random.default_rng(seed)
    readings = [(rng.normal(clear, 1.2), rng.integers(-1, 2)) for _ in range(n_sync)]
    readings += [(abs(rng.normal(1.0, 0.7)), rng.integers(-14, 15)) for _ in range(n_wrong)]
    readings += [(0.1, 15)] * edges
    videos = []
    for n in range(0, len(readings), 2):
        name = f"{language}{n}"
        pair = readings[n : n + 2]
        clips = tuple(clip(name, i) for i in range(len(pair)))
        syncs = tuple(reading(one.key, float(c), int(at)) for one, (c, at) in zip(clips, pair, strict=True))
        videos.append(measured(name, clips=clips, syncs=syncs, language=language))
    return videos


def test_what_the_limit_loses_and_lets_pass_is_told_by_language_without_labels():
    en, zh, both = calibrate(world("en", 7.0, 3000, 600) + world("zh", 4.0, 2000, 600), UNIFORM)
    assert (en.language, zh.language, both.language) == ("en", "zh", "")
    assert (en.videos, en.clips, both.clips) == (1800, 3600, 6200) and en.limit == both.limit == 3.0
    assert en.in_sync == pytest.approx(3000, rel=0.03) and zh.in_sync == pytest.approx(2000, rel=0.03)
    assert en.lost < 0.01 and zh.lost == pytest.approx(0.202, abs=0.03)  # of a normal at 4 with spread 1.2, below 3
    assert zh.lost_range[0] < 0.202 < zh.lost_range[1] < 0.3


@pytest.mark.parametrize(("alike", "n"), [(False, 400), (True, 200)], ids=["clips", "videos of clips alike"])
def test_the_range_is_as_wide_as_nine_in_ten_of_a_share_that_is_counted_among_so_many(alike, n):
    videos = world("zh", 4.0, 400, 0)
    if alike:
        firsts = [video.syncs.items[0] for video in videos]
        pairs = [(one, dataclasses.replace(one, key=one.key[:-1] + "1")) for one in firsts]
        videos = [measured(v.video.id, v.clips.items, syncs=two) for v, two in zip(videos, pairs, strict=True)]
    (told,) = calibrate(videos, UNIFORM)
    low, high = told.lost_range
    # Nine in ten of a normal lie within 1.645 of its deviations; were no clip counted twice, it would be 1.25.
    assert high - low == pytest.approx(2 * 1.645 * np.sqrt(told.lost * (1 - told.lost) / n), rel=0.15)


def test_the_proposed_limits_let_pass_equal_shares_and_lose_less_where_a_language_reads_lower():
    zh = world("zh", 4.0, 2000, 600)
    (told,) = calibrate(zh, UNIFORM, wrong=0.01)
    assert 1.0 < told.proposed < 2.5 and told.lost_then < told.lost / 3
    read = [one for video in zh for one in video.syncs.items]
    wrong = [s for s in read[2000:] if s.confidence >= told.proposed and abs(s.offset_frames) <= 1]
    passing = [s for s in read if s.confidence >= told.proposed and abs(s.offset_frames) <= 1]
    assert len(wrong) / len(passing) <= 0.015


def test_still_faces_that_end_at_the_last_offset_change_nothing():
    def without_clips(edges):
        (told,) = calibrate(world("de", 6.0, 400, 200, edges=edges), UNIFORM)
        return dataclasses.replace(told, clips=0, videos=0, lost_range=None)

    assert without_clips(400) == without_clips(0)


def test_clips_that_break_another_rule_are_not_looked_at():
    good = world("de", 6.0, 200, 40)
    unseen = world("de-AT", 1.0, 100, 0, seed=1)
    small = [tuple(dataclasses.replace(clip, face_px=20.0) for clip in one.clips.items) for one in unseen]
    bad = [dataclasses.replace(one, clips=Clips(items=clips)) for one, clips in zip(unseen, small, strict=True)]
    (told,) = calibrate(good + bad, UNIFORM)
    assert told.clips == 240


OUT_OF_SYNC = {
    "low_sync": {"confidence": 1.0},
    "far_sync": {"distance": 12.0},
    "offset": {"offset_frames": 4, "curve_offset_frames": (4,)},
    "sync_jump": {"curve_offset_frames": (8,)},
    "drift": {"drift_least_frames_per_min": 30.0},
}


@pytest.mark.parametrize(("rule", "known"), OUT_OF_SYNC.items(), ids=OUT_OF_SYNC)
def test_a_clip_that_breaks_a_rule_of_sync_alone_is_looked_at(rule, known):
    near = dataclasses.replace(UNIFORM, max_distance=9.0)
    one = measured(syncs=(dataclasses.replace(reading("v0-0000", 6.0, 0), **known),))
    assert [receipt.rule for receipt in judge([one], near)[0].receipts] == [rule]
    assert [told.clips for told in calibrate([one], near)] == [1]


@pytest.mark.parametrize(("n_sync", "n_wrong"), [(20, 60), (400, 0)], ids=["few clips", "no wrong clips"])
def test_what_cannot_be_told_is_not_proposed(n_sync, n_wrong):
    (told,) = calibrate(world("th", 6.0, n_sync, n_wrong), UNIFORM)
    assert told.few and told.proposed is None and told.lost_then is None and told.lost < 0.05


def test_where_no_limit_tells_right_from_wrong_that_is_not_for_want_of_clips():
    (told,) = calibrate(world("th", 0.0, 200, 400), UNIFORM)
    assert not told.few and told.proposed is None


def test_where_nothing_is_in_sync_nothing_is_lost_and_nothing_proposed():
    (told,) = calibrate(world("hr", 6.0, 0, 300), UNIFORM)
    assert told.proposed is None and (told.lost is None or told.in_sync < 30)


def test_limits_that_differ_by_language_leave_that_of_all_unsaid():
    *_, both = calibrate(world("en", 7.0, 30, 0) + world("zh", 7.0, 30, 0), PAPER)
    assert (both.limit, both.lost, both.wrong) == (None, None, None) and both.in_sync == 60


def test_a_policy_that_takes_out_offsets_counts_what_it_would_keep():
    names = [f"v{n}" for n in range(100)]
    late = [measured(v, clips=(clip(v, n_frames=250),), syncs=(reading(f"{v}-0000", 6.0, 5),)) for v in names]
    (strict,), (lenient,) = calibrate(late, UNIFORM), calibrate(late, LATENTSYNC)
    assert (strict.in_sync, lenient.in_sync) == (0.0, 100.0)


def test_the_order_of_the_videos_does_not_matter():
    videos = world("en", 5.0, 90, 30) + world("de", 5.0, 60, 30)
    assert calibrate(videos, UNIFORM) == calibrate(videos[::-1], UNIFORM)


def test_too_few_offsets_and_no_share_are_refused():
    near = measured(syncs=(reading("v0-0000", 6.0, 0, reach=FAR_FRAMES + 1),))
    with pytest.raises(ValueError, match=r"sync\.reach=10 tries no plainly wrong offset"):
        calibrate([near], UNIFORM)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="is no share between 0 and 1"):
            calibrate([measured()], UNIFORM, wrong=share)
    assert calibrate([], UNIFORM) == ()


def test_listeners_and_copies_say_nothing_of_how_far_the_limit_can_be_trusted():
    good, beside = world("de", 6.0, 200, 40), []
    for n, one in enumerate(good):
        clips, syncs = one.clips.items, one.syncs.items
        listener = clip(one.video.id, 9, track=1, n_frames=100)
        beside.append(
            measured(
                one.video.id,
                clips=(*clips, listener),
                tracks=(track(0), track(1)),
                syncs=(*syncs, reading(listener.key, 0.0, n % 29 - 14)),
            )
        )
        again = f"copy-{n:04d}"  # in sync or not, and read as the first
        made = tuple(clip(again, i) for i in range(len(clips)))
        same = tuple(dataclasses.replace(identity(o.key), key=c.key) for o, c in zip(clips, made, strict=True))
        read = tuple(dataclasses.replace(o, key=c.key) for o, c in zip(syncs, made, strict=True))
        beside.append(measured(again, clips=made, syncs=read, identities=same))
    (told,), (alone,) = calibrate(beside, UNIFORM), calibrate(good, UNIFORM)
    assert (told.clips, told.in_sync, told.wrong) == (alone.clips, alone.in_sync, alone.wrong)


def test_where_some_were_spared_the_hearing_what_is_heard_rules_none_out():
    """Else clips out of sync stay for being unheard, and those in sync go for what they say."""
    videos = world("de", 6.0, 400, 100)
    heard = {one.key for video in videos for one in video.syncs.items if one.confidence >= 3.0}
    other = dataclasses.replace(speech("-"), verdict="other")
    spared = [
        dataclasses.replace(
            video,
            speeches=dataclasses.replace(
                video.speeches,
                items=tuple(dataclasses.replace(other, key=one.key) for one in video.clips.items if one.key in heard),
            ),
        )
        for video in videos
    ]
    (told,), (all_heard,) = calibrate(spared, UNIFORM), calibrate(videos, UNIFORM)
    assert (told.clips, told.lost, told.wrong) == (500, all_heard.lost, all_heard.wrong)


def test_every_rule_about_what_is_heard_is_set_aside_where_a_cascade_spared_some_the_hearing():
    assert {rule for rule, bad in BAD.items() if set(bad) == {"speeches"}} <= SPEECH_RULES
