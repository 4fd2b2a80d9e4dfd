"""Searches, feeds, pages and lists of a language become videos: each once, in turns, no more than are wanted."""

import itertools
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pytest

from manifests.languages import Language
from manifests.records import Video
from manifests.store import Store
from manifests.table import ManifestError
from stages.discover import Discovery, _interleaved, _sources, discover, wanted_s
from stages.outcomes import NetworkError
from stages.politeness import HostClosedError, Manners, SharedPace
from stages.site import Access, Site, spoken_hint
from tests.server import Web
from tests.stages.fetching import keep_the_interval

BRISK = Discovery(unknown_duration_s=360.0)
ACCESS = Access(tries=2, backoff_s=0.05, stall_s=2.0, refusal_wait_s=0.1)
MANNERS = Manners(interval_s=0.0, refusals=2, closed_s=60.0, longest_wait_s=2.0)


def language(**fields: object) -> Language:
    return Language(**{"tag": "pl", "name": "Polish", "own_name": "polski", "hours": 1.0, **fields})  # type: ignore


def search(
    wanted: Language,
    folder: Path,
    *,
    hours: float = 100.0,
    options: Discovery = BRISK,
    manners: Manners = MANNERS,
    known: Container[str] = frozenset(),
) -> Iterator[Video]:
    return discover(wanted, hours, options, ACCESS, SharedPace(str(folder / "pace"), manners), known)


def found(wanted: Language, folder: Path, **given: Any) -> list[Video]:
    return list(search(wanted, folder, **given))


def feed(web: Web, path: str, *names: str) -> str:
    return web.feed(path, *(f"{web.url}/{name}.mp4" for name in names))


def names(videos: list[Video]) -> list[str]:
    return [video.url.rpartition("/")[2].removesuffix(".mp4") for video in videos]


def test_sources_take_turns_and_a_video_comes_once(tmp_path):
    with Web() as web:
        lists = (feed(web, "/first", "a", "b", "c"), feed(web, "/second", "a", "d"), feed(web, "/third", "e"))
        videos = found(language(playlists=lists), tmp_path)
    assert names(videos) == ["a", "e", "b", "d", "c"]
    assert {video.language for video in videos} == {"pl"}


def test_queries_are_asked_of_the_search_page_in_their_own_letters(tmp_path):
    with Web() as web:
        feed(web, "/results", "a")
        options = Discovery(search=f"{web.url}/results?q={{query}}")
        assert names(found(language(queries=("polski wywiad", "wykład")), tmp_path, options=options)) == ["a"]
        assert [asked.path for asked in web.requests("/results")] == [
            "/results?q=polski+wywiad",
            "/results?q=wyk%C5%82ad",
        ]


def test_a_search_of_yt_dlp_s_own_is_told_the_words_as_they_are(tmp_path, monkeypatch):
    from yt_dlp.extractor.bilibili import BiliBiliSearchIE

    asked = []
    monkeypatch.setattr(BiliBiliSearchIE, "_search_results", lambda self, query: iter(asked.append(query) or ()))
    options = Discovery(search="bilisearch5:{query}")
    assert found(language(queries=("中国人 采访", "a+b")), tmp_path, options=options) == []
    assert asked == ["中国人 采访", "a+b"]


def test_a_search_page_may_have_braces_of_its_own(tmp_path):
    with Web() as web:
        feed(web, "/results", "a")
        options = Discovery(search=f"{web.url}/results?filter={{x}}&q={{query}}")
        assert names(found(language(queries=("wywiad",)), tmp_path, options=options)) == ["a"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"search": "https://example.org/?q="}, "has no {query}"),
        ({"min_duration_s": 90.0, "max_duration_s": 60.0}, "min_duration_s: 90 is not from 0 to max_duration_s"),
        ({"unknown_duration_s": 0.0}, "unknown_duration_s: 0 is not more than 0"),
        ({"per_source": 0}, "per_source: 0 is not more than 0"),
    ],
)
def test_a_search_that_can_find_nothing_is_refused_at_once(wrong, said):
    with pytest.raises(ValueError, match=said):
        Discovery(**wrong)


def test_the_budget_ends_the_search_and_later_sources_are_never_opened(tmp_path):
    with Web() as web:
        lists = tuple(feed(web, f"/list{n}", f"a{n}", f"b{n}") for n in range(6))
        videos = found(language(playlists=lists), tmp_path, hours=0.25)  # two and a half of 360 s
        assert len(videos) == 3
        assert not web.asked("/list5")


def test_nothing_is_asked_before_the_first_video_is_wanted(tmp_path):
    with Web() as web:
        wanted = language(playlists=(feed(web, "/list", "a"),))
        videos = search(wanted, tmp_path)
        assert web.asked() == 0
        next(videos)
        assert web.asked() > 0


def test_a_page_with_a_video_gives_the_page_and_one_with_several_gives_their_files(tmp_path):
    with Web() as web:
        web.file("/a.mp4", b"\0" * 4096)
        web.file("/b.mp4", b"\0" * 4096)
        one = web.video_page("/one", "/a.mp4", title="Rozmowa")
        several = web.video_page("/several", "/a.mp4", "/b.mp4")
        videos = found(language(urls=(one, several)), tmp_path)
        assert [video.url for video in videos] == [one, f"{web.url}/a.mp4", f"{web.url}/b.mp4"]
        assert videos[0].title.startswith("Rozmowa")


def test_id_lists_and_folders_are_read_relative_to_the_language_file(tmp_path):
    (tmp_path / "ids.csv").write_text("youtube_id,start_s,end_s\nabcdefghijk,3,9\n")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/own.mp4").write_bytes(b"x")
    wanted = language(id_lists=("ids.csv",), files=("clips",), source=str(tmp_path / "pl.toml"))
    videos = found(wanted, tmp_path)
    assert [(video.url, video.start_s, video.language) for video in videos] == [
        (str(tmp_path / "clips/own.mp4"), None, "pl"),
        ("https://www.youtube.com/watch?v=abcdefghijk", 3.0, "pl"),
    ]


def test_of_a_list_in_many_languages_only_rows_of_its_own_or_of_none_are_taken(tmp_path):
    rows = ["a.mp4,de", "b.mp4,pl", "c.mp4,pl-PL", "d.mp4,", "e.mp4,other"]
    (tmp_path / "ids.csv").write_text("\n".join(["url,language", *rows]))
    videos = found(language(id_lists=("ids.csv",), source=str(tmp_path / "pl.toml")), tmp_path)
    assert names(videos) == ["b", "c", "d", "e"] and {video.language for video in videos} == {"pl"}


@pytest.mark.parametrize(
    ("tag", "own"), [("de", ["deu", "de", "und", "ger", "de-AT", "mul", ""]), ("zh", ["und", "mul", "", "cmn", "zho"])]
)
def test_rows_whose_language_is_written_another_way_are_its_own_and_others_are_counted(tag, own, tmp_path, caplog):
    stated = ["deu", "de", "und", "ger", "de-AT", "mul", "", "cmn", "zho", "en"]
    rows = [f"{n}.mp4,{one}" for n, one in enumerate(stated)]
    (tmp_path / "ids.csv").write_text("\n".join(["url,language", *rows]))
    videos = found(language(tag=tag, id_lists=("ids.csv",), source=str(tmp_path / "x.toml")), tmp_path)
    assert [stated[int(name)] for name in names(videos)] == own and {video.language for video in videos} == {tag}
    assert f"ids.csv: for {tag}, {len(stated) - len(own)} rows in other languages left out" in caplog.text


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        ({}, 300.0),
        ({"start_s": 1000.0}, 300.0),
        ({"duration_s": 60.0}, 60.0),
        ({"start_s": 7.0, "end_s": 12.0, "duration_s": 900.0}, 5.0),
        ({"start_s": 7.0, "duration_s": 900.0}, 893.0),
        ({"start_s": 7.0, "duration_s": 5.0}, 0.0),
    ],
)
def test_a_part_counts_for_its_own_length(known, seconds):
    assert wanted_s(Video.of("a", **known), 300.0) == seconds


def test_a_source_that_is_gone_costs_only_itself(tmp_path, caplog):
    with Web() as web:
        lists = (web.status("/gone", 404), feed(web, "/list", "a", "b"))
        assert names(found(language(playlists=lists), tmp_path)) == ["a", "b"]
    assert "/gone" in caplog.text


def test_it_is_an_error_if_nothing_can_be_listed(tmp_path):
    with Web() as web, pytest.raises(NetworkError, match="pl: nothing could be listed; first of 2 failures"):
        found(language(playlists=(web.status("/a", 404), web.status("/b", 500))), tmp_path)


def test_a_host_that_says_too_many_is_left_alone_after_a_few_questions(tmp_path):
    with Web() as web:
        lists = tuple(web.status(f"/list{n}", 429) for n in range(20))
        with pytest.raises(HostClosedError):
            found(language(playlists=lists), tmp_path)
        assert web.asked() <= 2


def test_what_lies_on_other_hosts_is_found_before_a_closed_one_is_told(tmp_path):
    with Web() as shut, Web() as open_:
        lists = (*(shut.status(f"/list{n}", 429) for n in range(4)), feed(open_, "/list", "a", "b"))
        seen = []
        with pytest.raises(HostClosedError):
            for video in search(language(playlists=lists), tmp_path):
                seen.append(video)
        assert names(seen) == ["a", "b"]


def test_listings_that_are_open_ask_a_closed_host_for_no_further_page():
    turned, asked = [Video.of(f"{n}.mp4") for n in range(9)], []

    def listing(name, pages, then=None):
        for page in range(pages):
            asked.append(name)
            yield turned[page]
        if then:
            raise then

    sources = [("h", listing("a", 1, HostClosedError("h", "closed"))), ("h", listing("b", 9)), ("i", listing("c", 3))]
    with pytest.raises(HostClosedError):
        list(_interleaved(sources))
    assert asked == ["a", "b", "c", "c", "c"]


def test_a_closed_host_costs_only_listings_of_its_own():
    """A page of one host may list what lies on another; and yt-dlp's own searches name no host."""
    turned = [Video.of(f"{n}.mp4") for n in range(3)]

    def refused(host):
        raise HostClosedError(host, "closed")
        yield

    sources = [
        ("i", refused("h")),
        ("", refused("")),
        ("i", iter(turned[:2])),
        ("", iter(turned[2:])),
        ("h", iter(turned)),
    ]
    found = []
    with pytest.raises(HostClosedError):
        for video in _interleaved(sources):
            found.append(video)
    assert sorted(found, key=str) == sorted(turned, key=str)


def test_lists_are_asked_for_at_the_common_pace(tmp_path):
    with Web() as web:
        lists = tuple(feed(web, f"/list{n}", "a") for n in range(3))
        found(language(playlists=lists), tmp_path, manners=Manners(interval_s=0.4))
        taken = [asked.at_s for n in range(3) for asked in web.requests(f"/list{n}")[:1]]
    keep_the_interval(Store(str(tmp_path / "pace")), taken, 0.4)


def entry(**fields: object) -> dict[str, object]:
    return {"_type": "url", "url": "https://example.org/v", "title": "T", "duration": 600.0, **fields}


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({}, True),
        ({"duration": None}, True),
        ({"duration": 20}, False),
        ({"duration": 9000}, False),
        ({"live_status": "is_live"}, False),
        ({"live_status": "is_upcoming", "duration": None}, False),
        ({"live_status": "was_live"}, True),
        ({"automatic_captions": {"en": [], "pl-orig": []}}, True),
        ({"automatic_captions": {"pl": [], "de-orig": []}}, False),
        ({"language": "pl-PL"}, True),
        ({"language": "de"}, False),
        ({"language": "pol"}, True),
        ({"language": "und"}, True),
    ],
)
def test_what_a_listing_says_is_enough_to_pass_a_video_over(fields, passes, tmp_path, monkeypatch):
    monkeypatch.setattr(Site, "entries", lambda self, url: [entry(**fields)])
    assert len(found(language(playlists=("https://example.org/list",)), tmp_path)) == passes


def test_a_channel_page_is_followed_to_its_tabs(tmp_path, monkeypatch):
    pages = {
        "https://example.org/@c": [{"_type": "url", "ie_key": "YoutubeTab", "url": "https://example.org/@c/videos"}],
        "https://example.org/@c/videos": [entry(url="abcdefghijk", channel="C", channel_id="UC1")],
    }
    monkeypatch.setattr(Site, "entries", lambda self, url: pages[url])
    (video,) = found(language(channels=("https://example.org/@c",)), tmp_path)
    assert (video.url, video.channel, video.duration_s) == (
        "https://www.youtube.com/watch?v=abcdefghijk",
        "C",
        600.0,
    )


@pytest.mark.parametrize(
    "stated", ["file:///own/a.mp4", "/own/a.mp4", "s3://own/a.mp4", "http://[", "http://a:99999/b", "http://a..b/c"]
)
def test_what_a_page_states_that_is_no_address_on_the_web_is_passed_over(stated, tmp_path, monkeypatch):
    with Web() as web:
        lists = (web.feed("/list", stated, f"{web.url}/a.mp4"),)
        assert names(found(language(playlists=lists), tmp_path)) == ["a"]
    tab = {"_type": "url", "ie_key": "YoutubeTab", "url": stated}
    pages = {"https://example.org/@c": [tab, entry(url="https://example.org/b.mp4")]}
    monkeypatch.setattr(Site, "entries", lambda self, url: pages[url])
    assert names(found(language(channels=tuple(pages)), tmp_path)) == ["b"]


def test_an_address_that_is_none_in_a_language_s_file_is_named_with_the_file(tmp_path):
    with pytest.raises(ManifestError, match=r"pl\.toml: 'http://a:99999/b' cannot be an address: Port out of range"):
        found(language(urls=("http://a:99999/b",), source="pl.toml"), tmp_path)


@pytest.mark.parametrize("stated", ["http://[", "http://a..b/c"])
def test_a_listing_that_leads_to_no_address_costs_only_itself(stated, tmp_path, caplog):
    with Web() as web:
        page = web.page("/page", f'<html><body><video src="{stated}.m3u8"></video></body></html>')
        lists = (web.redirect("/moved", stated), page, feed(web, "/list", "a"))
        assert names(found(language(playlists=lists), tmp_path)) == ["a"]
    assert caplog.text.count("a source was passed over") == 2


def test_a_listing_without_end_is_left_after_so_many(tmp_path, monkeypatch):
    endless = (entry(url=f"https://example.org/{n}") for n in itertools.count())
    monkeypatch.setattr(Site, "entries", lambda self, url: endless)
    options = Discovery(per_source=30)
    assert len(found(language(playlists=("https://example.org/list",)), tmp_path, options=options)) == 30


def test_looking_at_the_pages_passes_over_another_spoken_language(tmp_path, monkeypatch):
    said = {"a": "de", "b": "pl", "c": "", "d": "pol", "e": "zxx"}
    spoken = {f"https://example.org/{name}": tag for name, tag in said.items()}
    monkeypatch.setattr(Site, "entries", lambda self, url: [entry(url=url) for url in spoken])
    monkeypatch.setattr(Site, "look", lambda self, url: {"language": spoken[url]})
    options = Discovery(look=True)
    videos = found(language(playlists=("https://example.org/list",)), tmp_path, options=options)
    assert names(videos) == ["b", "c", "d", "e"]


def test_pages_of_what_is_known_are_not_opened_also_where_it_became_known_meanwhile(tmp_path, monkeypatch):
    urls = [f"https://example.org/{name}" for name in "abcd"]
    looked: list[str] = []
    monkeypatch.setattr(Site, "entries", lambda self, url: [entry(url=url) for url in urls])
    monkeypatch.setattr(Site, "look", lambda self, url: looked.append(url) or {})
    known = {Video.of(urls[0]).id}
    videos = search(
        language(playlists=("https://example.org/list",)), tmp_path, options=Discovery(look=True), known=known
    )
    assert names([next(videos), next(videos)]) == ["a", "b"]
    known.add(Video.of(urls[2]).id)
    assert names(list(videos)) == ["c", "d"] and looked == [urls[1], urls[3]]


def test_a_page_of_a_host_that_is_closed_is_taken_unseen(tmp_path, monkeypatch):
    def closed(self, url):
        raise HostClosedError("example.org", "all turns are taken")

    monkeypatch.setattr(Site, "entries", lambda self, url: [entry(url="https://example.org/a")])
    monkeypatch.setattr(Site, "look", closed)
    options = Discovery(look=True)
    assert names(found(language(playlists=("https://example.org/list",)), tmp_path, options=options)) == ["a"]


def test_the_recogniser_s_own_caption_track_names_the_spoken_language():
    assert spoken_hint({"automatic_captions": {"en": [], "hr-orig": [], "hr": []}, "language": "en"}) == "hr"
    assert spoken_hint({"automatic_captions": {"en": []}, "language": "th"}) == "th"
    assert spoken_hint({"automatic_captions": None}) == ""


def test_youtube_is_searched_under_creative_commons_unless_any_licence_will_do():
    asked = []

    class Listening(Site):
        def __init__(self) -> None:
            self._access = ACCESS

        def entries(self, url):
            asked.append(url)
            return []

    for licence in ("cc", "any"):
        for _, source in _sources(language(queries=("wywiad",), licence=licence), BRISK, Listening()):
            list(source())
    assert asked == [
        "https://www.youtube.com/results?search_query=wywiad&sp=EgQQATAB",
        "https://www.youtube.com/results?search_query=wywiad&sp=EgIQAQ%3D%3D",
    ]


def test_importing_discovery_and_fetch_does_not_load_yt_dlp_or_pyav():
    code = "import sys, stages.discover, stages.fetch; sys.exit(bool({'yt_dlp', 'av', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
