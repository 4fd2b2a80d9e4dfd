"""Waves of a wild run: what one host or one language does to the others."""

import pytest

from manifests.languages import Language
from manifests.records import Video
from manifests.store import Store
from pipeline import run as running
from pipeline import sources
from pipeline.job import Job, add_videos
from pipeline.sources import Hours, Wild
from stages.discover import Discovery
from stages.outcomes import NetworkError
from stages.politeness import HostClosedError

NOTHING = Hours({}, {})


def videos(tag, *names):
    return [Video.of(f"http://h.invalid/{tag}/{name}.mp4", language=tag, duration_s=3600.0) for name in names]


@pytest.fixture
def wild(monkeypatch, tmp_path):
    """A search in two languages, each with a script: videos, and errors to raise, one list per time it is begun."""
    scripts: dict[str, list[list[object]]] = {"de": [], "pl": []}

    def told(language, hours, options, *, pace_url):
        for one in scripts[language.tag].pop(0):
            if isinstance(one, Exception):
                raise one
            yield one

    monkeypatch.setattr(sources, "discover", told)
    monkeypatch.setattr(
        sources,
        "load",
        lambda: tuple(Language(tag=tag, name=tag, own_name=tag, hours=100.0) for tag in scripts),
    )

    def made(**given):
        scripts.update(given)
        return Wild(None, None, Store(str(tmp_path)), Discovery())

    return made


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
    search = type("Search", (), {"troubles": [], "next_wave": lambda self, hours, known: tuple(next(found))})()
    monkeypatch.setattr(running, "_carry", lambda this, all_of_them, due: carried.append(len(all_of_them)))
    options = type("Options", (), {"until": until})()
    job = Job(recipe="sample")
    console = type("Console", (), {"print": lambda self, *_: None})()
    this = running._Run(options, console, store, job, job.build(), "r")
    running._search(this, search, add_videos(store, ()))
    assert carried == list(range(1, waves + 1))
