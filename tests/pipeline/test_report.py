"""The report counts what happened, shows the clips, and needs nothing but itself."""

import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from rich.console import Console

from manifests.store import Store
from pipeline import plots, report_html
from pipeline.figures import collect
from pipeline.pictures import contact_sheet, thumbnails
from pipeline.plots import by_language, histograms
from pipeline.report import REPORT, print_tables, write_report
from pipeline.report_html import gallery, language_name, receipts
from stages.judge import judge
from stages.policies import PAPER, ForLanguage
from tests.stages.measured import clip, measured, source, speech, stored_clip, sync, track

POLICY = dataclasses.replace(PAPER, min_duration_s=None)


def videos(store):
    """Five: three measured (one good, one with a bad clip beside a good one, one silent), one rejected, one failed."""
    good = measured("v1", clips=(stored_clip(store, "v1"),), language="pl", person=1)
    half = tuple(stored_clip(store, "v2", n, seed=n, start_s=n * 0.8) for n in range(2))
    silent = stored_clip(store, "v3")
    return [
        good,
        measured("v2", clips=half, syncs=(sync(half[0].key, 8.0), sync(half[1].key, 2.9)), person=2),
        measured("v3", clips=(silent,), speeches=(speech(silent.key, speech_share=0.0),), tracks=(track(motion=0.0),)),
        dataclasses.replace(measured("v4"), seen=None, clips=None, rejected=("watch", "no_face", {})),
        dataclasses.replace(measured("v5"), source=None, seen=None, clips=None, failed=("fetch", "failed", "Timeout")),
    ]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("store")))
    known = videos(store)
    verdicts = judge(known, POLICY)
    provenance = {"command": "python -m pipeline run", "versions": {"torch": "2.8"}}
    figures = write_report(store, known, verdicts, POLICY, provenance=provenance, notes=["<b>random</b> weights"])
    return store, known, verdicts, figures


def test_the_funnel_accounts_for_every_video_and_clip(reported):
    *_, figures = reported
    steps = {step.name: step for step in figures.steps}
    assert [steps[name].entered for name in ("fetch", "watch", "clip", "identity")] == [5, 4, 3, 3]
    assert (steps["fetch"].failed, steps["watch"].rejected, steps["judge"].passed, steps["judge"].rejected) == (
        1,
        1,
        2,
        2,
    )
    assert steps["watch"].reasons == (("no_face", 1),)
    for step in figures.steps:
        assert step.entered == step.passed + step.rejected + step.failed + step.waiting


def test_languages_add_up_to_the_total(reported):
    *_, figures = reported
    assert {one.name: (one.videos, one.kept, one.persons) for one in figures.languages} == {
        "pl": (1, 1, 1),
        "de": (4, 1, 1),
    }
    assert figures.total.hours == pytest.approx(sum(one.hours for one in figures.languages))
    assert figures.total.hours == pytest.approx(40 / 25 / 3600)


def test_a_rule_says_what_comes_back_without_it(reported):
    *_, figures = reported
    rules = {rule.name: (rule.any, rule.alone) for rule in figures.rules}
    assert rules == {"low_sync": (1, 1), "no_speech": (1, 0), "still_face": (1, 0)}


def test_a_rule_says_what_it_costs_each_language(reported):
    store, *_, figures = reported
    costs = {name: {r.name: (r.first, r.alone) for r in of.values()} for name, of in figures.rules_by_language.items()}
    assert costs == {"de": {"low_sync": (1, 1), "still_face": (1, 0), "no_speech": (0, 0)}, "pl": {}}
    cell = f'1<div class="dim tiny">1 · {20 / 25 / 3600:.3f} h</div></td>'
    assert f'<td>low_sync</td><td class="n">{cell}' in store.get(REPORT).decode()


def test_each_language_is_drawn_with_the_limit_that_holds_for_it():
    known = [measured(f"{n}", language=name, person=n) for n, name in enumerate(("de", "th", "zh", "zh"))]
    policy = dataclasses.replace(PAPER, by_language=(*PAPER.by_language, ForLanguage("th", "min_confidence", 2.2)))
    judged = collect(known, judge(known, policy), policy).judged
    assert [(one.title, [label for _, label in one.limits]) for one in by_language(judged, policy)] == [
        ("zh", ["2"]),
        ("de", ["3"]),
        ("th", ["2.2"]),
    ]
    assert len({(one.low, one.high) for one in by_language(judged, policy)}) == 1
    together = next(one for one in histograms(judged, policy) if one.title == "Sync confidence")
    assert [label for _, label in together.limits] == ["2 zh", "", "3"], "one would be written over the other"
    assert by_language([one for one in judged if one.language == "zh"], policy) == []


def test_no_language_and_no_rule_fills_the_gallery_of_near_misses():
    known = [measured(f"a{n}", syncs=(sync(f"a{n}-0000", 2.9),), person=n) for n in range(20)]
    known.append(measured("b", syncs=(sync("b-0000", 1.0),), language="th"))
    known.append(measured("c", tracks=(track(yaw_p95_deg=80.0),)))
    _, _, missed = gallery(collect(known, judge(known, PAPER), PAPER))
    assert len(missed) == 16 and {one.verdict.video for one in missed[:3]} > {"b", "c"}


def test_word_times_of_kept_clips_are_counted_by_who_gave_them():
    clips = tuple(clip("v0", n, start_s=4.0 * n) for n in range(3))
    spoken = (speech(clips[0].key), speech(clips[1].key, aligned=False), speech(clips[2].key, aligned=False))
    known = [measured(clips=clips, speeches=spoken)]
    figures = collect(known, judge(known, POLICY), POLICY)
    assert figures.word_times == [("the recogniser itself", 2), ("a forced aligner", 1)]


def test_the_gallery_shows_near_misses_before_far_ones():
    clips = tuple(clip("v0", n, start_s=4.0 * n) for n in range(4))
    confidences = (2.9, 1.0, 2.5, 7.0)
    syncs = tuple(sync(one.key, confidence) for one, confidence in zip(clips, confidences, strict=True))
    known = [measured(clips=clips, syncs=syncs)]
    figures = collect(known, judge(known, PAPER), PAPER)
    kept, narrow, missed = gallery(figures)
    assert [one.clip.clip.number for one in missed] == [0, 2, 1] and [one.clip.clip.number for one in kept] == [3]
    assert [key for key, *_ in receipts(figures)] == [clips[n].key for n in (0, 2, 1)] and narrow == kept


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.outside, self.tags, self.open = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_whole_file_without_scripts_or_anything_from_outside(reported):
    store, *_ = reported
    page = store.get(REPORT).decode()
    links = _Links()
    links.feed(page)
    assert links.open == []
    assert len(links.outside) > 0 and all(store.exists(path) for path in links.outside), "clips below the page's folder"
    assert "script" not in links.tags and "link" not in links.tags and "@import" not in page and "url(" not in page
    assert len(re.findall("data:image/jpeg;base64,", page)) == 3 * (2 + 2 + 1)


def test_the_page_tells_funnel_receipts_provenance_and_notes(reported):
    store, *_ = reported
    page = store.get(REPORT).decode()
    for said in ("no_face", "v2-0001", "2.90", "-0.10", "python -m pipeline run", "2.8", "Polish", "Timeout"):
        assert said in page
    assert "&lt;b&gt;random&lt;/b&gt; weights" in page and "<b>random</b>" not in page


def test_a_clip_in_a_gallery_tells_its_video_and_its_time_there_and_no_login(tmp_path):
    store = Store(str(tmp_path))
    one = measured("v1", clips=(stored_clip(store, "v1", start_s=2.5),))
    url = 'https://me:Secret@example.org/a"b.mp4?signed=Secret'
    known = [dataclasses.replace(one, video=dataclasses.replace(one.video, url=url))]
    write_report(store, known, judge(known, POLICY), POLICY, provenance={})
    page = store.get(REPORT).decode()
    assert re.search(r'title="https://\S*example.org/a&#34;b.mp4\?\*\*\*, 2.5 to [\d.]+ s"', page)
    assert "Secret" not in page


@pytest.mark.parametrize(
    ("code", "name"),
    [("it", "Italian"), ("zh", "Chinese"), ("yue", "Cantonese"), ("tlh", "tlh"), ("all", "All"), ("", "Not stated")],
)
def test_a_language_that_lists_may_call_by_its_english_name_is_shown_by_it(code, name):
    assert language_name(code) == name


def test_pictures_and_plots_are_drawn_as_large_as_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(report_html, "_THUMB_PX", 64)
    for module in (report_html, plots):
        monkeypatch.setattr(module, "HEIGHT", 500)
    store = Store(str(tmp_path))
    known = [measured("v1", clips=(stored_clip(store, "v1"),))]
    write_report(store, known, judge(known, POLICY), POLICY, provenance={})
    page = store.get(REPORT).decode()
    assert set(re.findall(r'<img [^>]*alt="" width="(\d+)" height="(\d+)"', page)) == {("64", "64")}
    bars = re.findall(r'<rect class="k" x="[\d.]+" y="(-?[\d.]+)" width="[\d.]+" height="([\d.]+)"', page)
    assert bars and {float(y) + float(height) for y, height in bars} == {500.0}
    assert set(re.findall(r'viewBox="0 -16 300 (\d+)"', page)) == {"518"}


def test_equal_inputs_give_an_equal_page(reported):
    store, known, verdicts, _ = reported
    before = store.get(REPORT)
    provenance = {"command": "python -m pipeline run", "versions": {"torch": "2.8"}}
    write_report(store, known, verdicts, POLICY, provenance=provenance, notes=["<b>random</b> weights"])
    assert store.get(REPORT) == before


def test_a_report_of_nothing_is_a_page_too(tmp_path):
    store = Store(str(tmp_path))
    figures = write_report(store, [], (), PAPER, provenance={})
    assert "No clip was dropped" in store.get(REPORT).decode()
    print_tables(Console(file=io.StringIO()), figures)


def test_a_clip_whose_file_is_gone_shows_as_a_blank(tmp_path):
    store = Store(str(tmp_path))
    known = [measured(clips=(clip("v0", n_frames=100),))]
    write_report(store, known, judge(known, PAPER), PAPER, provenance={})
    assert "no picture" in store.get(REPORT).decode()


def test_tables_print_every_stage_language_and_reason(reported):
    *_, figures = reported
    out = io.StringIO()
    print_tables(Console(file=out, width=140), figures, notes=["weights are random"])
    text = out.getvalue()
    for said in ("weights are random", "fetch", "judge (clips)", "watch: no_face", "judge: low_sync", "pl", "241.6"):
        assert said in text


def test_failures_are_told_with_their_last_line_those_alike_together(tmp_path):
    error = "stages.outcomes.NetworkError: a.invalid: [generic] {}: HTTP Error 500: no (caused by <HTTPError 500: no>)"
    bare = {"source": None, "seen": None, "clips": None}
    known = [
        *(dataclasses.replace(measured(n), **bare, failed=("fetch", "failed", error.format(n))) for n in "abc"),
        dataclasses.replace(measured("d"), **bare, failed=("fetch", "quarantined", "its worker died 3 times")),
    ]
    figures = write_report(Store(str(tmp_path)), known, (), PAPER, provenance={})
    assert figures.failures_alike == [
        ("fetch", "failed", "NetworkError: a.invalid: [generic] HTTP Error 500: no", 3),
        ("fetch", "quarantined", "its worker died 3 times", 1),
    ]
    out = io.StringIO()
    print_tables(Console(file=out, width=80, markup=False), figures)
    page = Store(str(tmp_path)).get(REPORT).decode()
    for said in (
        "failed: NetworkError: a.invalid: [generic] HTTP Error 500: no",
        "quarantined: its worker died 3 times",
        "failed: 3 of 4 videos, tried again by the next run",
        "given up after three tries: 1 of 4 videos, tried again by run --retry",
    ):
        assert said in " ".join(out.getvalue().split()).replace(" 3 · · · ", " ") and said in page


def test_the_page_counts_the_videos_that_wait(tmp_path):
    store, new = Store(str(tmp_path)), {"seen": None, "clips": None}
    known = [measured("v0"), *(dataclasses.replace(measured(name), **new) for name in ("v1", "v2"))]
    write_report(store, known, judge(known, PAPER), PAPER, provenance={})
    (row,) = re.findall(r"<tr><td>watch</td>\n(.*)\n", store.get(REPORT).decode())
    assert re.findall(r">([\d,]+)</td>", row) == ["3", "1", "0", "0", "2"]


def test_a_list_that_the_page_cuts_says_how_much_more_there_is(tmp_path):
    store, bare = Store(str(tmp_path)), {"source": None, "seen": None, "clips": None}
    free = [dataclasses.replace(measured(f"v{n}"), source=source(licence=f"licence {n}")) for n in range(13)]
    lost = [dataclasses.replace(measured(f"x{n}"), **bare, failed=("fetch", "failed", f"E{n}")) for n in range(201)]
    write_report(store, [*free, *lost], judge(free, PAPER), PAPER, provenance={})
    page = store.get(REPORT).decode()
    assert re.search(r"licence \d+ \(1\) and 1 more</dd>", page)
    assert '<td>other errors</td><td class="n">151</td>' in page
    assert "201 videos failed" in page and "The first 200; all are in <code>videos.parquet</code>." in page


def test_tables_fit_into_80_letters_without_cutting_a_word(reported):
    *_, figures = reported
    out = io.StringIO()
    print_tables(Console(file=out, width=80), figures)
    text = out.getvalue()
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    assert "language  videos  clips  kept  hours  persons  mean s  paper h  lost most to" in text


def test_thumbnails_are_the_moments_asked_for(tmp_path):
    store = Store(str(tmp_path))
    one = stored_clip(store, "v0", n_frames=51)
    first, last = thumbnails(store, one, size_px=64, at=(0.0, 1.0))
    assert first.shape == (64, 64, 3)
    # The grey square of the made-up clip starts at the left edge and moves two pixels per frame.
    assert abs(int(first[32, 4].mean()) - 128) < 12 and abs(int(first[32, 56].mean()) - 128) > 4
    assert abs(int(last[32, (100 % 48) + 8].mean()) - 128) < 12


def test_the_contact_sheet_has_a_cell_for_every_clip(tmp_path):
    store = Store(str(tmp_path))
    clips = [stored_clip(store, "v0", n) for n in range(3)] + [clip("gone")]
    sheet = Image.open(io.BytesIO(contact_sheet(store, clips, size_px=32, columns=2, frames=2)))
    assert sheet.size == (2 * (64 + 6) + 6, 2 * (46 + 6) + 6)


def test_a_margin_to_a_limit_in_words_is_no_share_of_it_and_no_near_miss():
    talker, listener = (clip("v0", n, track=n) for n in range(2))
    known = [
        measured(
            clips=(talker, listener),
            tracks=(track(0), track(1)),
            syncs=(sync(talker.key, 8.0), sync(listener.key, 7.9)),
        ),
        measured("v1", syncs=(sync("v1-0000", 1.0),)),
    ]
    figures = collect(known, judge(known, PAPER), PAPER)
    assert [(receipt.rule, relative) for _, _, receipt, relative in receipts(figures)] == [
        ("low_sync", pytest.approx(-2 / 3)),
        ("not_the_speaker", None),
    ]


def test_a_language_is_one_row_however_its_tag_is_written():
    known = [measured(f"v{n}", language=tag, person=n) for n, tag in enumerate(("cmn", "zh-Hant", "iw", "he", "und"))]
    figures = collect(known, judge(known, PAPER), PAPER)
    assert {one.name: (one.videos, one.kept) for one in figures.languages} == {"zh": (2, 2), "he": (2, 2), "": (1, 1)}


def test_what_a_language_is_lost_to_is_counted_in_videos():
    gone = [dataclasses.replace(measured(f"g{n}"), clips=None, rejected=("fetch", "gone", {})) for n in range(2)]
    many = tuple(clip("v0", n, start_s=4.0 * n) for n in range(5))
    one = measured(clips=many, syncs=tuple(sync(one.key, 1.0) for one in many))
    (language,) = collect([*gone, one], judge([*gone, one], PAPER), PAPER).languages
    assert language.top_reason == "gone"
