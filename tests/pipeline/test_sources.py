"""Waves of a wild run: what one host or one language does to the others."""

from dataclasses import replace
from itertools import count

import pytest
from msgspec import structs
from rich.console import Console

from manifests.languages import Language
from manifests.records import Video
from manifests.store import Store
from pipeline import run as running
from pipeline import sources
from pipeline.cli import main
from pipeline.job import Job, add_videos, read_videos
from pipeline.ledger import Ledger, Outcome
from pipeline.recipes import build
from pipeline.sources import Hours, Wild, of_languages
from stages.discover import Discovery
from stages.fetch import _vet
from stages.judge import Measured
from stages.outcomes import NetworkError
from stages.politeness import HostClosedError
from tests.stages.measured import source

NOTHING = Hours({}, {})


def videos(tag, *names):
    known = {"language": tag, "licence_rule": "cc", "duration_s": 3600.0}
    return [Video.of(f"http://h.invalid/{tag}/{name}.mp4", **known) for name in names]


@pytest.fixture
def wild(monkeypatch, tmp_path):
    """A search in two languages, each with a script: videos, and errors to raise, one list per time it is begun."""
    scripts: dict[str, list[list[object]]] = {"de": [], "pl": []}
    searched: dict[str, object] = {}

    def told(language, hours, options, access, pace, known):
        searched[language.tag], made.known = (language.licence, options, access), known
        for one in scripts[language.tag].pop(0):
            if isinstance(one, Exception):
                raise one
            yield one

    monkeypatch.setattr(sources, "discover", told)
    monkeypatch.setattr(
        sources,
        "load",
        lambda: tuple(
            Language(tag=tag, name=tag, own_name=tag, hours=100.0, licence="any" if tag in made.any else "cc")
            for tag in scripts
        ),
    )

    def made(*sets, any=(), **given):
        scripts.update(given)
        made.any, recipe = any, build("wild", overrides=sets)
        return Wild(None, made.hours, Store(str(tmp_path)), recipe.discover, recipe.fetch)

    made.searched, made.hours = searched, None

    return made


def test_a_bare_tag_picks_its_language_in_every_spelling_and_a_narrower_one_says_what_it_leaves(caplog):
    tags = ("zh", "zh-TW", "cmn", "yue", "he", "pl", None)
    rows = tuple(Video.of(f"{n}.mp4", language=tag) for n, tag in enumerate(tags))

    def picked(langs):
        return [video.language for video in of_languages(rows, langs, "v.csv")]

    assert [picked(langs) for langs in ("zh", "iw,pl", "yue")] == [["zh", "zh-TW", "cmn"], ["he", "pl"], ["yue"]]
    assert not caplog.messages
    assert picked("zh-TW") == ["zh-TW"]
    assert caplog.messages == ["v.csv: rows of the same languages left out: 2, of cmn, zh"]
    with pytest.raises(ValueError, match="--langs zh-HK: no zh-HK here; must be a number from 1 to 6, or any of zh,"):
        picked("zh-HK")


def test_expected_languages_that_the_recogniser_cannot_name_are_told_beforehand(capsys, tmp_path):
    rows = ["a.mp4,swe", "b.mp4,de-AT", "c.mp4,und", "d.mp4,bs", "e.mp4,"]
    (tmp_path / "v.csv").write_text("\n".join(["url,language", *rows]))
    for row in rows:
        (tmp_path / row.partition(",")[0]).write_bytes(b"x")
    command = ["run", "--manifest", str(tmp_path / "v.csv"), "--store", str(tmp_path / "out"), "--dry"]
    said = "languages that sample/whisper cannot name, so that none of their clips can agree: "
    assert main([*command, "--set", "speech.model=sample/whisper"]) == 0
    assert f"{said}sv\n" in capsys.readouterr().out
    assert main([*command, "--set", "speech.model=sample/whisper", "--langs", "de"]) == 0
    assert said not in capsys.readouterr().out
    assert main([*command, "--set", "speech.model=sample/whisper", "--until", "watch"]) == 0
    assert said not in capsys.readouterr().out


def test_a_language_whose_host_is_closed_is_asked_again_in_the_next_wave(wild):
    search = wild(
        de=[[*videos("de", "a"), HostClosedError("h", "closed")], videos("de", "a", "b")], pl=[videos("pl", "x")]
    )
    first = search.next_wave(NOTHING, ())
    assert first == (*videos("de", "a"), *videos("pl", "x")) and [*map(str, search.troubles)] == ["h: closed"]
    assert search.next_wave(NOTHING, first) == tuple(videos("de", "b")) and search.troubles == []


def test_a_language_of_which_nothing_can_be_listed_costs_only_itself_and_is_asked_again(wild):
    search = wild(de=[[NetworkError("de: nothing could be listed")], videos("de", "a")], pl=[videos("pl", "x")])
    first = search.next_wave(NOTHING, ())
    assert first == tuple(videos("pl", "x"))
    assert [*map(str, search.troubles)] == ["de: nothing could be listed"]
    assert search.next_wave(NOTHING, first) == tuple(videos("de", "a")) and search.troubles == []


@pytest.mark.parametrize("poles", [[NetworkError("pl: nothing")], [HostClosedError("h", "closed")], []])
def test_where_nothing_can_be_listed_at_all_the_run_says_so(poles, wild):
    search = wild(de=[[NetworkError("de: nothing")]], pl=[poles])
    with pytest.raises(NetworkError, match="de: nothing"):
        search.next_wave(NOTHING, ())


def test_a_network_that_is_gone_in_a_later_wave_ends_the_search_and_keeps_what_was_found(wild):
    search = wild(de=[[NetworkError("de: nothing")]], pl=[[NetworkError("pl: nothing")]])
    assert search.next_wave(NOTHING, videos("de", "a")) == ()
    assert len(search.troubles) == 2


@pytest.mark.parametrize(
    ("sets", "searched", "passing"),
    [
        ((), {"de": "any", "pl": "cc"}, ["de"]),
        (("fetch.licence=any",), {"de": "any", "pl": "any"}, ["de", "pl"]),
        (("fetch.licence=cc",), {"de": "cc", "pl": "cc"}, []),
    ],
)
def test_what_is_searched_for_under_a_language_s_licence_rule_is_what_fetch_lets_pass(sets, searched, passing, wild):
    found = wild(*sets, any=("de",), de=[videos("de", "a")], pl=[videos("pl", "x")]).next_wave(NOTHING, ())
    assert {tag: licence for tag, (licence, *_) in wild.searched.items()} == searched
    fetch, page = build("wild", overrides=sets).fetch, {"license": "All rights reserved"}
    assert [video.language for video in found if _vet(fetch, video)(page) is None] == passing


def test_videos_found_under_a_rule_that_was_changed_are_told_where_it_decides(wild):
    german, polish = found = wild(de=[videos("de", "a")], pl=[videos("pl", "x")]).next_wave(NOTHING, ())
    changed = wild(any=("de",)).ruled_otherwise(found)
    assert changed == (replace(german, licence_rule="any"),)
    assert wild(any=("de",)).ruled_otherwise((*changed, polish)) == ()
    assert wild("fetch.licence=cc", any=("de",)).ruled_otherwise(found) == ()


def test_files_of_one_s_own_are_under_no_rule_of_the_web(wild):
    own = Video.of("/own/a.mp4", language="de")
    assert wild(de=[[own]], pl=[[]]).next_wave(NOTHING, ()) == (own,)
    assert wild(any=("de",)).ruled_otherwise((own,)) == ()


def test_a_rule_that_was_once_put_on_files_of_one_s_own_goes_and_that_of_what_a_page_named_stays(wild, tmp_path):
    (tmp_path / "own.csv").write_text("url\na.mp4\n")
    named, own = (Video.of(str(tmp_path / name), language="de", licence_rule="cc") for name in ("b.mp4", "a.mp4"))
    search = wild("fetch.licence=cc")
    at = {"source": str(tmp_path / "de.toml"), "files": ("own.csv", "gone.csv")}
    search.languages = [structs.replace(language, **at) for language in search.languages]
    assert search.ruled_otherwise((named, own)) == (replace(own, licence_rule=""),)


def test_what_is_set_of_the_search_reaches_it(wild):
    sets = ("discover.look=true", "discover.per_source=7", "fetch.access.proxy=http://p")
    wild(*sets, de=[videos("de", "a")], pl=[videos("pl", "x")]).next_wave(NOTHING, ())
    _, options, access = wild.searched["de"]
    assert options == Discovery(look=True, per_source=7) and access.proxy == "http://p"


@pytest.mark.parametrize(
    ("seen", "kept", "found"), [(0.0, 0.0, 25), (40.0, 8.0, 25), (120.0, 24.0, 60), (400.0, 80.0, 100)]
)
def test_a_wave_looks_for_more_the_better_the_yield_is_known_and_for_no_more_than_is_wanted(wild, seen, kept, found):
    search = wild(de=[videos("de", *range(200))], pl=[[]])
    assert len(search.next_wave(Hours({"de": seen}, {"de": kept}), ())) == found


def test_a_forgotten_video_is_not_found_again(wild, tmp_path):
    gone, other = videos("de", "a", "b")
    Store(str(tmp_path)).put(f"tombstones/{gone.id}.json", b"{}")
    assert wild(de=[[gone, other]], pl=[[]]).next_wave(NOTHING, ()) == (other,)


@pytest.mark.parametrize(("until", "waves"), [("fetch", 1), ("identity", 3), (None, 3)])
def test_a_run_that_ends_before_clips_searches_one_wave(until, waves, monkeypatch, tmp_path):
    store, carried, found = (
        Store(str(tmp_path)),
        [],
        iter([videos("de", "a"), videos("de", "b"), videos("de", "c"), ()]),
    )
    told = {"troubles": [], "next_wave": lambda self, hours, known: tuple(next(found)), "short": lambda self, hours: ()}
    search = type("Search", (), told)()
    monkeypatch.setattr(running, "_carry", lambda this, all_of_them, due: carried.append(len(all_of_them)))
    options = type("Options", (), {"until": until})()
    job = Job(recipe="sample")
    console = type("Console", (), {"print": lambda self, *_: None})()
    this = running._Run(options, console, store, job, job.build(), "r")
    running._search(this, search, add_videos(store, ()))
    assert carried == list(range(1, waves + 1))


def test_a_search_is_told_what_is_known_and_what_was_found_meanwhile(wild):
    found, before = videos("de", "a", "b"), videos("de", "c")
    assert wild(de=[found], pl=[[]]).next_wave(NOTHING, before) == tuple(found)
    assert wild.known == {video.id for video in (*found, *before)}


def test_a_part_counts_for_its_own_length_in_a_wave(wild):
    parts = [Video.of("a", language="de", start_s=n * 1800, end_s=(n + 1) * 1800, duration_s=36e3) for n in range(60)]
    search = wild("discover.unknown_duration_s=36000", de=[parts], pl=[[]])
    assert len(search.next_wave(NOTHING, ())) == 50, "of half an hour each, where a wave looks for 25 hours"
    assert Hours.of([Measured(parts[0], rejected=("fetch", "gone", {}))], (), 300.0).seen == {"de": 0.5}


def test_a_search_that_ends_short_says_by_how_much_and_where_more_could_come_from(wild):
    search = wild(de=[[]], pl=[[NetworkError("pl: nothing could be listed")]])
    assert search.next_wave(NOTHING, videos("de", "a")) == ()
    more, later = search.short(Hours({}, {"de": 3.2, "pl": 0.0}))
    assert more.startswith("de: 3.20 of 100 h kept and nothing more is found: add queries or channels to ")
    assert more.endswith(", or read listings further with --set discover.per_source=400")
    assert later == "pl: 0.00 of 100 h kept and nothing more is found now: run the same command again later"
    assert list(search.short(Hours({}, {"de": 100.0, "pl": 101.0}))) == []


def test_a_run_whose_search_ends_short_prints_it(wild, capsys, tmp_path):
    search, store, job = wild(de=[[]], pl=[[]]), Store(str(tmp_path)), Job(recipe="sample")
    this = running._Run(type("Options", (), {"until": None})(), Console(), store, job, job.build(), "r")
    running._search(this, search, ())
    said = [line.partition(" and ")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == [f"{tag}: 0.00 of 100 h kept" for tag in ("de", "pl")]


def test_a_wave_leaves_files_that_are_not_there_for_later_whoever_found_them(wild, tmp_path, monkeypatch, capsys):
    store, job, entered = Store(str(tmp_path)), Job(recipe="wild"), []
    away, late, there = (Video.of(str(tmp_path / name), language="de", duration_s=1.0) for name in ("a", "b", "c"))
    (tmp_path / "c").touch()

    def carry(this, videos, due):
        assert {one.id for one in videos}.isdisjoint({away.id, late.id})
        entered.extend(due[0].enter)
        for id in due[0].enter:
            Ledger(store).write(due[0].key, id, Outcome(status="rejected", body={"reason": "short", "measured": {}}))

    monkeypatch.setattr(running, "_carry", carry)
    known = add_videos(store, [away])
    this = running._Run(type("Options", (), {"until": None})(), Console(), store, job, job.build(), "r")
    running._search(this, wild(de=[[late, there]], pl=[[]]), known)
    assert entered == [there.id] and read_videos(store) == tuple(sorted((away, late, there), key=lambda one: one.id))
    assert "videos found whose files are not there, left for later: 1\n" in capsys.readouterr().out


def endless(tag):
    return (one for n in count() for one in videos(tag, n))


def test_of_two_languages_that_find_the_same_video_in_one_wave_the_first_has_it(wild):
    both, polish = videos("de", "both", "pl")
    search = wild(de=[[both]], pl=[[replace(both, language="pl"), replace(polish, language="pl")]])
    assert [(one.id, one.language) for one in search.next_wave(NOTHING, ())] == [(both.id, "de"), (polish.id, "pl")]


def test_a_video_that_waits_was_not_looked_at_though_it_may_be_fetched():
    gone, closed, unknown, full = (Video.of(name, language="de", duration_s=3600.0) for name in "abcd")
    unknown = replace(unknown, duration_s=None)
    known = [
        Measured(gone, rejected=("fetch", "gone", {})),
        Measured(closed, postponed=("fetch", "h: closed")),
        Measured(unknown, postponed=("fetch", "h: closed")),
        Measured(full, source=source(), postponed=("watch", "no memory")),
    ]
    hours = Hours.of(known, (), 360.0)
    assert (hours.seen, hours.waiting) == ({"de": 1.0}, {"de": [1.0, 0.1, source().duration_s / 3600]})


def test_a_host_that_stays_closed_ends_the_search_after_one_wave_with_a_line(wild, monkeypatch, tmp_path, capsys):
    wild.hours, store, job = 0.5, Store(str(tmp_path)), Job(recipe="sample")
    search, carried = wild(de=[videos("de", *range(99))], pl=[videos("pl", *range(99))]), []

    def sent_away(this, all_of_them, due):
        carried.append(len(all_of_them))
        for id in due[0].enter:
            Ledger(store).begin(due[0].key, id, "r")
            Ledger(store).put_off(due[0].key, id, "r", 1, "h: closed")

    monkeypatch.setattr(running, "_carry", sent_away)
    this = running._Run(type("Options", (), {"until": None})(), Console(), store, job, job.build(), "r")
    running._search(this, search, ())
    assert carried == [8], "four hours of each, of which 15 % are half an hour and more"
    assert capsys.readouterr().out.splitlines() == [
        "found 8 more videos",
        "de, pl: 8 videos that were found wait, and no more are looked for before they are measured: "
        "run the same command again later",
    ]


def test_a_few_videos_that_wait_end_the_search_of_no_language_and_a_whole_wave_that_of_its_own(wild):
    search = wild(de=[endless("de")], pl=[endless("pl")])
    few, wave = [1.0] * 3, [1.0] * 25
    assert len(search.next_wave(Hours({}, {}, {"de": few}), ())) == (25 - 3) + 25
    assert {one.language for one in search.next_wave(Hours({}, {}, {"de": wave, "pl": few}), ())} == {"pl"}


def test_a_search_that_runs_dry_while_videos_wait_says_so_as_well(wild):
    search = wild(de=[[]], pl=[[]])
    hours = Hours({}, {"pl": 100.0}, {"de": [1.0, 1.0]})
    assert search.next_wave(hours, videos("de", "a")) == ()
    (said,) = search.short(hours)
    assert "nothing more is found: run the same command again later, as 2 videos wait, or add queries" in said


def test_a_wild_run_says_beforehand_what_its_hours_take_and_which_settings_are_too_small(tmp_path, capsys):
    def said(*more):
        assert main(["run", "wild", "--langs", "en,de", "--store", str(tmp_path), "--dry", *more]) == 0
        return capsys.readouterr().out.splitlines()[0]

    assert said("--hours", "250") == (
        "source wanted, if 15 % is kept: 3,333 h (languages: 2), for en 1,667 h where its listings give some 267 h at "
        "most; at the pace of one host that takes 55.6 h: --set discover.per_source=1250, and for the pace "
        "fetch.manners.interval_s"
    )
    enough = said("--hours", "250", "--set", "discover.per_source=1250")
    assert enough.endswith("where its listings give some 1,667 h at most; at the pace of one host that takes 55.6 h")
    assert said("--hours", "15", "--set", "fetch.manners.interval_s=0").endswith("listings give some 267 h at most")
