"""The scorer: what counts as right, wrong, caught and missed."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from manifests.records import Receipt, Seen, Verdict
from manifests.sample.truth import Segment, SpokenWord, Truth, VideoTruth
from stages.score import score
from stages.score_table import tables
from stages.transcript import edits, tokens
from tests.stages.measured import NO_FILE, clip, measured, speech, sync, track

BOX = (100.0, 50.0, 200.0, 180.0)
WINDOW = (50.0, 20.0, 250.0, 220.0)
HELLO = (SpokenWord(text="Guten", start_s=0.5, end_s=0.9), SpokenWord(text="Tag.", start_s=1.0, end_s=1.4))


def segment(start_s=0.0, end_s=8.0, **known):
    good = {
        "person": 1, "box": BOX, "yaw_deg": 3.0, "talks": True, "language": "de", "text": "Guten Tag.",
        "words": tuple(replace(w, start_s=w.start_s + start_s, end_s=w.end_s + start_s) for w in HELLO),
        "audio_offset_frames": 0,
    }  # fmt: skip
    return Segment(start_s=start_s, end_s=end_s, **(good | known))


def video(path="v0.mp4", segments=(), **known):
    segments = segments or (segment(),)
    good = {
        "tagged_language": "de",
        "duration_s": segments[-1].end_s,
        "rate_hz": 25.0,
        "width_px": 640,
        "height_px": 360,
    }
    cuts_s = tuple(s.start_s for s in segments[1:] if s.start_s)
    return VideoTruth(path=path, segments=tuple(segments), cuts_s=cuts_s, **(good | known))


def truth(*videos):
    return Truth(seed=1, hard=False, videos=videos)


def run(name="v0", clips=None, cuts=(), **known):
    clips = (clip(name, n_frames=200),) if clips is None else clips
    made = measured(name, clips=clips, **known)
    seen = Seen(n_frames=1500, cuts=cuts, tracks=(track(),), arrays=NO_FILE, faces_share=1.0, decoded_s=60.0)
    return replace(made, seen=seen)


def verdicts(*runs, dropped=()):
    reason = (Receipt("offset", 6.0, 1.0, -5.0),)
    return [
        Verdict(key=c.key, video=one.video.id, kept=c.key not in dropped, policy="p",
                receipts=reason if c.key in dropped else ())
        for one in runs if one.clips for c in one.clips.items
    ]  # fmt: skip


def scored(true, *runs, dropped=(), windows=None):
    return score(true, runs, verdicts(*runs, dropped=dropped), windows or {})


def test_a_perfect_run_is_perfect():
    one = run()
    found = scored(truth(video()), one)
    assert found.kept_precision.share == found.kept_recall.share == found.kept_recall_s.share == 1.0
    assert found.language_accuracy.share == found.offset_within_1_frame.share == 1.0
    assert found.word_error_rate.share == 0.0
    assert found.misses == ()


def test_a_dropped_good_scene_costs_recall_and_is_named_with_its_receipt():
    one = run()
    found = scored(truth(video()), one, dropped=("v0-0000",))
    assert found.kept_recall.share == 0.0
    assert found.kept_precision.share is None
    assert "should be kept, but is not: v0.mp4 0.0-8.0 s: offset 6 (limit 1)" in found.misses


def test_a_video_that_was_not_run_costs_recall():
    assert scored(truth(video())).kept_recall.share == 0.0


def test_a_kept_flaw_costs_precision_and_is_missed():
    flawed = video(segments=(segment(flaw="shifted_audio", should_keep=False, audio_offset_frames=6),))
    found = scored(truth(flawed), run())
    assert found.kept_precision.share == 0.0
    assert [(p.flaw, p.caught) for p in found.flaws] == [("shifted_audio", False)]
    caught = scored(truth(flawed), run(), dropped=("v0-0000",))
    assert [p.caught for p in caught.flaws] == [True]
    assert "offset 6 (limit 1)" in caught.flaws[0].measured


def test_of_two_people_the_clip_is_the_one_in_its_window():
    left = segment(person=1)
    right = segment(person=2, box=(400.0, 50.0, 500.0, 180.0), talks=False, flaw="listener", should_keep=False)
    one = run(clips=(clip("v0", 0, n_frames=200), clip("v0", 1, n_frames=200)))
    windows = {"v0-0000": WINDOW, "v0-0001": (350.0, 20.0, 550.0, 220.0)}
    found = scored(truth(video(segments=(left, right))), one, dropped=("v0-0001",), windows=windows)
    assert found.kept_precision.share == found.kept_recall.share == 1.0
    assert [p.caught for p in found.flaws] == [True]


def test_offsets_count_against_the_true_shift_and_not_where_voice_and_lips_do_not_belong_together():
    late = video(segments=(segment(flaw="shifted_audio", should_keep=False, audio_offset_frames=6),))
    close = scored(truth(late), run(syncs=(sync("v0-0000", offset_frames=7),)))
    far = scored(truth(late), run(syncs=(sync("v0-0000", offset_frames=0),)))
    assert (close.offset_within_1_frame.n, far.offset_within_1_frame.n) == (1, 0)
    strange = video(segments=(segment(flaw="other_voice", should_keep=False),))
    assert scored(truth(strange), run()).offset_within_1_frame.share is None


def test_words_count_by_what_is_heard_inside_the_clip():
    half = run(clips=(clip("v0", start_s=0.0, n_frames=25),), speeches=(speech("v0-0000", text="guten"),))
    assert scored(truth(video()), half).word_error_rate.share == 0.0
    wrong = run(speeches=(speech("v0-0000", text="guten Abend, Tag"),))
    found = scored(truth(video()), wrong)
    assert found.word_error_rate.share == 0.5
    plain = json.loads(found.to_json())
    assert plain["word_error_rate_by_language"] == {"de": 0.5}, "a share, as all that has its name"
    assert plain["counted"]["word_error_rate"] == {"n": 1, "of": 2}, "one that is wrong, and not right"


def test_a_wrong_language_is_named():
    found = scored(truth(video()), run(speeches=(speech("v0-0000", language="pl"),)))
    assert found.language_accuracy.share == 0.0
    assert any(m.startswith("language: v0.mp4 0.0-8.0 s: pl") and m.endswith("is de") for m in found.misses)


@pytest.mark.parametrize(
    ("cuts", "expected"), [((200,), 1.0), ((201,), 1.0), ((203,), 0.0), ((200, 300), 2 / 3), ((), 0.0)]
)
def test_cuts_are_exact_to_a_frame(cuts, expected):
    two = video(segments=(segment(), segment(8.0, 16.0)))
    found = scored(truth(two), run(cuts=cuts)).cut_f1
    assert (found or 0.0) == pytest.approx(expected)


def test_a_clip_across_a_cut_is_wrong():
    two = video(segments=(segment(), segment(8.0, 16.0)))
    found = scored(truth(two), run(clips=(clip("v0", n_frames=400),)))
    assert found.kept_precision.share == 0.0
    assert "spans a cut" in found.misses[0]


@pytest.mark.parametrize(("kept", "caught", "right"), [("a", True, 1), ("b", True, 1), ("ab", False, 1)])
def test_of_a_video_and_its_copy_one_is_to_be_kept(kept, caught, right):
    copied = video("b.mp4", (segment(flaw="duplicate", should_keep=None),), flaw="duplicate", copy_of="a.mp4")
    runs = (run("a"), run("b"))
    dropped = [f"{name}-0000" for name in "ab" if name not in kept]
    found = scored(truth(video("a.mp4"), copied), *runs, dropped=dropped)
    assert [p.caught for p in found.flaws] == [caught]
    assert found.kept_recall.share == 1.0
    assert found.kept_precision.n == right
    assert found.kept_precision.of == len(kept)


def test_a_refused_file_is_caught_and_says_why_and_a_failure_is_not_caught():
    mute = video(segments=(segment(flaw="no_audio", should_keep=False),), flaw="no_audio")
    plain = replace(run(clips=()), clips=None)
    refused = replace(plain, rejected=("fetch", "no_audio", {}))
    failed = replace(plain, failed=("fetch", "failed", "OSError: broken"))
    assert [(p.caught, p.measured) for p in scored(truth(mute), refused).flaws] == [(True, "fetch: no_audio")]
    assert [(p.caught, p.measured) for p in scored(truth(mute), failed).flaws] == [(False, "failed: OSError: broken")]


def test_json_holds_the_named_figures_and_the_table_prints():
    flawed = video("w.mp4", (segment(flaw="wrong_tag", should_keep=False),), flaw="wrong_tag")
    found = scored(truth(video(), flawed), run(), run("w"), dropped=("w-0000",))
    plain = json.loads(found.to_json())
    names = {"kept_precision", "kept_recall", "language_accuracy", "word_error_rate", "offset_within_1_frame", "cut_f1"}
    assert names | {"flaws", "misses"} <= plain.keys()
    assert plain["kept_precision"] == 1.0
    assert plain["flaws"]["wrong_tag"]["caught"] == 1
    console = Console(width=160, record=True)
    for table in tables(found):
        console.print(table)
    assert "wrong_tag" in console.export_text()


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Guten Tag, wie geht's?", "de", ["guten", "tag", "wie", "gehts"]),
        ("大家 早上好。", "zh", ["大", "家", "早", "上", "好"]),
        ("صَبَاحُ الْخَيْرِ", "ar", ["صباح", "الخير"]),
        ("ŻÓŁĆ", "pl", ["żółć"]),
    ],
)
def test_tokens_ignore_case_points_and_optional_marks(text, language, expected):
    assert tokens(text, language) == expected


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [("abc", "abc", 0), ("abc", "axc", 1), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3)],
)
def test_edits_are_the_fewest(said, heard, expected):
    assert edits(said, heard) == expected
