"""What is taken of what a site offers, how far a download comes that breaks off, and what is checked before any."""

import inspect
import json
import logging
from pathlib import Path

import pytest

from pipeline.stage import Rejection
from stages.fetch import Fetch
from stages.politeness import SharedPace
from stages.site import Access, Site, spoken_hint
from tests.server import Web
from tests.stages.fetching import ACCESS, MANNERS, reason

URL = "http://example.invalid/watch"


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(ACCESS, SharedPace(str(tmp_path / "pace"), MANNERS))


@pytest.fixture
def offering(monkeypatch):
    """A page with formats as YouTube's extractor makes them; nothing is asked."""

    def offer(*formats: dict[str, object]) -> None:
        from yt_dlp.extractor.generic import GenericIE

        page = {"id": "x", "title": "x", "formats": [{"url": f"{URL}/{one['format_id']}", **one} for one in formats]}
        monkeypatch.setattr(GenericIE, "_real_extract", lambda self, url: page)

    return offer


def picture(format_id: str, height_px: int, codec: str, sound: str = "none") -> dict[str, object]:
    size = {"width": height_px * 16 // 9, "height": height_px}
    return {"format_id": format_id, "ext": "mp4", "vcodec": codec, "acodec": sound, **size}


def sound(format_id: str, **known: object) -> dict[str, object]:
    return {"format_id": format_id, "ext": "m4a", "vcodec": "none", "acodec": "mp4a.40.2", **known}


REAL = (picture("135", 480, "avc1.4d401e"), picture("244", 480, "vp9"))
INVENTED = (picture("247-sr", 720, "vp9"), picture("248-sr", 1080, "vp9"), picture("399-sr-0", 1080, "av01.0.08M.08"))
BOTH = picture("18", 360, "avc1.42001E", "mp4a.40.2")


@pytest.mark.parametrize(
    ("formats", "chosen"),
    [
        ((*REAL, *INVENTED, BOTH, sound("140"), sound("140-vb", tbr=999)), "135+140"),
        ((*INVENTED, BOTH), "18"),
        ((*INVENTED, sound("140")), "248-sr+140"),
        ((picture("hd-src", 1080, "avc1.4d401e"), *REAL, sound("140")), "hd-src+140"),
    ],
)
def test_pictures_and_voices_that_a_site_invented_are_taken_only_where_there_are_no_others(
    site, offering, tmp_path, formats, chosen
):
    offering(*formats)
    seen = []

    def vet(info):
        seen.append(info["format_id"])
        return Rejection("seen")

    assert reason(site.download(URL, tmp_path, max_height_px=1080, max_size_bytes=1, vet=vet)) == "seen"
    assert seen == [chosen]


@pytest.mark.parametrize(
    ("languages", "hint"),
    [({"pl": 10, "de": -1}, "pl"), ({"pl": None}, "pl"), ({"pl": None, "de": None}, ""), ({}, "")],
)
def test_the_language_of_the_sound_that_a_site_prefers_is_seen_without_choosing_a_format(
    site, offering, languages, hint
):
    sounds = [sound(tag, language=tag, language_preference=rank) for tag, rank in languages.items()]
    offering(BOTH, *sounds)
    assert spoken_hint(site.look(URL)) == hint


def test_texts_of_a_listing_are_such_as_can_be_written_down(site, monkeypatch):
    from yt_dlp.extractor.generic import GenericIE
    from yt_dlp.utils import unescapeHTML

    entry = {"_type": "url", "url": URL, "title": unescapeHTML("&#55357;&#56832; &#55357;")}
    page = {"_type": "playlist", "id": "x", "entries": [entry]}
    monkeypatch.setattr(GenericIE, "_real_extract", lambda self, url: page)
    assert [info["title"] for info in site.entries(URL)] == ["😀 \ufffd"]


def hanging_up(web: Web, data: bytes, every: int) -> str:
    """A file of a server that closes each connection after so many bytes, and knows ranges."""

    def answer(handler):
        first = int(handler.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        said = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
        handler.send_head(len(data) - first, "video/mp4", 206 if "Range" in handler.headers else 200, said)
        handler.wfile.write(data[first : first + every])

    return web.route("/a.mp4", answer)


def brought(site: Site, url: str, folder: Path) -> bytes:
    found = site.download(url, folder, max_height_px=1080, max_size_bytes=1 << 20, vet=lambda _: None)
    assert not isinstance(found, Rejection), found
    return found.path.read_bytes()


def test_a_file_whose_host_hangs_up_again_and_again_comes_whole_as_long_as_each_try_brings_more(
    site, tmp_path, monkeypatch
):
    monkeypatch.setattr("stages.site._LEAST_MORE_BYTES", 1 << 12)
    data = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 400
    with Web() as web:
        assert brought(site, hanging_up(web, data, len(data) // 12), tmp_path) == data


@pytest.mark.parametrize(("most_resumed", "least_more_bytes"), [(1, 1), (100, 1 << 20)])
def test_tries_that_bring_a_little_each_come_to_an_end(site, tmp_path, monkeypatch, most_resumed, least_more_bytes):
    monkeypatch.setattr("stages.site._MOST_RESUMED", most_resumed)
    monkeypatch.setattr("stages.site._LEAST_MORE_BYTES", least_more_bytes)
    data = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 400
    with Web() as web:
        url = hanging_up(web, data, len(data) // 40)
        found = site.download(url, tmp_path, max_height_px=1080, max_size_bytes=1 << 20, vet=lambda _: None)
        assert reason(found) == "truncated"
        assert len({asked.headers["Range"] for asked in web.requests() if "Range" in asked.headers}) < 9


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([{"domain": ".example.org", "name": "a", "value": "b"}], indent=1).encode(),
        b"# Netscape HTTP Cookie File\n.example.org TRUE / FALSE 0 a b\n",
        b".example.org\tTRUE\t/\tFALSE\t0\ta\tb\n",
        b"\xff\xfe\0",
        b"",
    ],
)
def test_a_cookies_file_of_the_wrong_form_is_told_in_one_line_before_a_run(tmp_path, content, capfd):
    path = tmp_path / "cookies.txt"
    path.write_bytes(content)
    fetch = Fetch(access=Access(cookies=str(path)))
    with pytest.raises(ValueError, match=r"cookies\.txt holds no cookies in the form of cookies\.txt: .*; not JSON$"):
        fetch.check()
    assert capfd.readouterr() == ("", "")
    path.write_text("# Netscape HTTP Cookie File\n.example.org\tTRUE\t/\tFALSE\t0\ta\tb\n")
    fetch.check()


@pytest.mark.parametrize("licence", ["cc", "per_language"])
def test_pages_in_another_language_hide_the_licence_and_are_refused_where_it_counts(licence):
    german = Access(extractor_args=("youtube:player_client=default,mweb;lang=de",))
    with pytest.raises(ValueError, match="youtube:lang=de: yt-dlp reads a video's licence off English pages only"):
        Fetch(access=german, licence=licence).check()
    Fetch(access=german, licence="any").check()
    Fetch(access=Access(extractor_args=("youtube:player_client=default,mweb", "youtubetab:lang=de"))).check()
    Fetch(access=Access(extractor_args=("youtube:lang=en",)), licence=licence).check()


@pytest.mark.parametrize(
    "said",
    ["The provided YouTube account cookies are no longer valid. ", "No supported JavaScript runtime could be found. "],
)
def test_that_cookies_count_no_more_or_a_program_lacks_is_said_once_and_aloud(site, monkeypatch, caplog, said):
    from yt_dlp.extractor.generic import GenericIE
    from yt_dlp.extractor.youtube import _base, _video

    assert said in inspect.getsource(_base) + inspect.getsource(_video), "yt-dlp's own words"

    def extract(self, url):
        for word in (said, "some formats may be missing"):
            self.report_warning(word)
        return {"id": "x", "title": "x", "url": f"{url}.mp4"}

    monkeypatch.setattr(GenericIE, "_real_extract", extract)
    assert site.look(URL)["id"] == site.look(URL)["id"] == "x"
    (loud,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert loud.levelno == logging.ERROR and said in loud.message
