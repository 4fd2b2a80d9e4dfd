"""Every way a download can go ends in the video, in a rejection that says why, or in an error of the run; for real."""

import json
import multiprocessing
import signal
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest

from manifests.records import Source
from manifests.store import Store
from pipeline.stage import Rejection, Stage
from stages.fetch import Fetch, is_free
from stages.outcomes import NetworkError
from stages.politeness import Manners
from stages.site import Access
from tests.media import (
    Sound,
    hum,
    numbered_video,
    times_at,
    with_cover_art,
)
from tests.server import Web
from tests.stages.fetching import ACCESS, Fetching, reason

SOUND = Sound(samples=hum(4))


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Four seconds with picture and sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return numbered_video(path, times_at(Fraction(25), 4), sound=SOUND)


@pytest.fixture
def fetch(tmp_path) -> Fetching:
    return Fetching(tmp_path)


def test_a_direct_link_is_stored_byte_for_byte_and_described(fetch, clip):
    with Web() as web:
        url = web.file("/talk.mp4", clip)
        source = fetch(url, title="Ein Gespräch", channel="Kanal", licence="CC BY 4.0")
    assert isinstance(source, Source)
    assert fetch.store.get(source.file.path) == clip.read_bytes()
    assert (source.video.width_px, source.video.height_px, source.video.codec) == (160, 96, "h264")
    assert (source.audio.rate_hz, source.audio.channels) == (48_000, 2)
    assert source.duration_s == pytest.approx(4.0, abs=0.05)
    assert (source.page_url, source.extractor) == (url, "generic")
    assert (source.title, source.uploader, source.licence) == ("talk", "", ""), "what the site said, no more"
    assert source.tool.startswith("yt-dlp 20")


def test_a_page_with_a_video_element_is_followed_to_the_video(fetch, clip):
    with Web() as web:
        web.file("/media/clip.mp4", clip)
        source = fetch(web.video_page("/watch", "/media/clip.mp4", title="Wywiad"))
    assert isinstance(source, Source)
    assert fetch.store.get(source.file.path) == clip.read_bytes()
    assert (source.extractor, source.title.split()[0]) == ("html5", "Wywiad")


def pieces(web: Web, clip: Path, name: str, kinds: set[str]) -> None:
    """Serve the streams of some kinds as an HLS list of two pieces, `/name.m3u8`."""
    with av.open(str(clip)) as source, av.open(str(clip.with_name(f"{name}.ts")), "w") as ts:
        streams = {s.index: ts.add_stream_from_template(s) for s in source.streams if s.type in kinds}
        for packet in source.demux():
            if packet.dts is not None and packet.stream.index in streams:
                packet.stream = streams[packet.stream.index]
                ts.mux(packet)
    data = clip.with_name(f"{name}.ts").read_bytes()
    half = len(data) // 188 // 2 * 188
    web.file(f"/{name}0.ts", data[:half], kind="video/mp2t")
    web.file(f"/{name}1.ts", data[half:], kind="video/mp2t")
    body = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2,", f"{name}0.ts", "#EXTINF:2,", f"{name}1.ts"]
    web.page(f"/{name}.m3u8", "\n".join([*body, "#EXT-X-ENDLIST"]), kind="application/vnd.apple.mpegurl")


def test_a_stream_in_pieces_is_put_together(fetch, clip):
    with Web() as web:
        pieces(web, clip, "all", {"video", "audio"})
        source = fetch(f"{web.url}/all.m3u8")
    assert isinstance(source, Source)
    assert source.duration_s == pytest.approx(4.0, abs=0.1)
    assert source.file.path.endswith(".mp4")


def test_a_stream_with_a_missing_piece_is_not_shipped_with_a_hole(fetch, clip):
    with Web() as web:
        pieces(web, clip, "all", {"video", "audio"})
        web.status("/all1.ts", 500)
        with pytest.raises(NetworkError):
            fetch(f"{web.url}/all.m3u8")
    assert fetch.stored() == []


def test_picture_and_sound_that_come_apart_are_merged(fetch, clip):
    lines = [
        "#EXTM3U",
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="spoken",DEFAULT=YES,AUTOSELECT=YES,URI="sound.m3u8"',
        '#EXT-X-STREAM-INF:BANDWIDTH=200000,RESOLUTION=160x96,CODECS="avc1.64000a,mp4a.40.2",AUDIO="a"',
        "picture.m3u8",
    ]
    with Web() as web:
        pieces(web, clip, "picture", {"video"})
        pieces(web, clip, "sound", {"audio"})
        source = fetch(web.page("/master.m3u8", "\n".join(lines), kind="application/vnd.apple.mpegurl"))
    assert isinstance(source, Source)
    assert source.duration_s == pytest.approx(4.0, abs=0.1)
    assert (source.video.codec, source.audio.codec) == ("h264", "aac")


def test_a_playlist_page_is_not_one_video(fetch, clip):
    with Web() as web:
        web.file("/a.mp4", clip)
        web.file("/b.mp4", clip)
        assert reason(fetch(web.video_page("/two", "/a.mp4", "/b.mp4"))) == "playlist"
        assert reason(fetch(web.feed("/feed", f"{web.url}/a.mp4", f"{web.url}/b.mp4"))) == "playlist"
        assert isinstance(fetch(web.feed("/short", f"{web.url}/a.mp4")), Source)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(404, "gone"), (410, "gone"), (403, "blocked"), (401, "private"), (402, "members_only"), (451, "geo")],
)
def test_a_status_is_a_reason(fetch, status, expected):
    with Web() as web:
        result = fetch(web.status("/a.mp4", status))
        assert reason(result) == expected
        assert result.measured["status"] == status
        assert web.asked() == 1
    assert fetch.stored() == []


@pytest.mark.parametrize(
    ("path", "content", "kind", "expected"),
    [
        ("/a.mp4", b"<html><body>Sorry.</body></html>" * 90, "video/mp4", "not_a_video"),
        ("/page", b"<html><body>Nothing here.</body></html>", "text/html", "not_a_video"),
        ("/a.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 4000, "image/jpeg", "not_a_video"),
        ("/a.zip", b"PK\x03\x04" + b"\0" * 4000, "application/zip", "not_a_video"),
    ],
)
def test_what_is_not_a_video_is_said_to_be_none(fetch, path, content, kind, expected):
    with Web() as web:
        assert reason(fetch(web.file(path, content, kind=kind))) == expected
    assert fetch.stored() == []


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "audio/mpeg", "image/gif", "video/x-odd"])
def test_a_video_under_a_wrong_content_type_is_a_video_all_the_same(fetch, clip, kind):
    with Web() as web:
        assert isinstance(fetch(web.file("/clip.mp4", clip, kind=kind)), Source)


def test_a_redirect_loop_ends(fetch):
    with Web() as web:
        assert reason(fetch(web.redirect("/loop", "/loop"))) == "gone"
        assert web.asked() < 40


def test_a_redirection_is_followed_and_the_address_stays_the_manifest_s(fetch, clip):
    with Web() as web:
        web.file("/clip.mp4", clip)
        moved = web.redirect("/moved", "/clip.mp4?token=1")
        source = fetch(moved)
    assert isinstance(source, Source)
    assert source.page_url == moved, "the manifest's: a signed address expires, and nobody else has it"


def test_a_body_that_stalls_is_given_up_and_is_no_fact_about_the_video(fetch, clip):
    with Web() as web:
        begin = time.monotonic()
        with pytest.raises(NetworkError, match=r"[Tt]imed out"):
            fetch(web.stalled("/a.mp4", clip.read_bytes(), 5000))
        assert time.monotonic() - begin < 60
    assert fetch.stored() == []


def test_a_body_that_is_always_cut_off_is_truncated(fetch, clip):
    with Web() as web:
        result = fetch(web.truncated("/a.mp4", clip.read_bytes(), 5000))
        assert reason(result) == "truncated"
        assert "more expected" in str(result.measured["said"])
        assert web.asked() <= 8
    assert fetch.stored() == []


def test_a_body_that_was_cut_off_once_is_resumed(fetch, clip):
    with Web() as web:
        source = fetch(web.truncated("/a.mp4", clip.read_bytes(), 5000, times=2))
        assert isinstance(source, Source)
        assert fetch.store.get(source.file.path) == clip.read_bytes()
        assert any("Range" in asked.headers for asked in web.requests())


def test_a_server_error_that_passes_costs_nothing_but_time(fetch, clip):
    with Web() as web:
        web.file("/a.mp4", clip)
        assert isinstance(fetch(web.status("/a.mp4", 500, times=1)), Source)


def test_a_server_error_that_stays_is_an_error_of_the_run(fetch):
    with Web() as web:
        with pytest.raises(NetworkError, match="502"):
            fetch(web.status("/a.mp4", 502))
        assert web.asked() == ACCESS.tries


def test_a_server_that_is_not_there_is_an_error_of_the_run(fetch):
    with Web() as web:
        url = web.url
    with pytest.raises(NetworkError):
        fetch(f"{url}/a.mp4")


def test_limits_of_length_and_size_are_kept_before_the_bytes_are_there(tmp_path, clip):
    size = clip.stat().st_size
    small, short = Fetching(tmp_path, max_size_bytes=size // 2), Fetching(tmp_path, max_duration_s=2.0)
    with Web() as web:
        url = web.file("/a.mp4", clip)
        result = small(url)
        assert reason(result) == "too_big"
        assert result.measured["limit"] == size // 2
        assert reason(small(clip)) == "too_big"
        result = short(url)
        assert reason(result) == "too_long"
        assert result.measured["duration_s"] == pytest.approx(4.0, abs=0.05)
        assert isinstance(short(url, start_s=1.0, end_s=2.5), Source)


def test_sound_and_picture_are_both_needed(fetch, tmp_path):

    silent = numbered_video(tmp_path / "silent.mp4", times_at(Fraction(25), 1))
    assert reason(fetch(silent)) == "no_audio"
    assert reason(fetch(with_cover_art(tmp_path / "song.mp4"))) == "no_video_stream"
    assert fetch.stored() == []


def test_only_free_licences_pass_where_that_is_the_rule(tmp_path, clip):
    fetch = Fetching(tmp_path, licence="cc")
    with Web() as web:
        url = web.file("/a.mp4", clip)
        result = fetch(url)
        assert reason(result) == "licence"
        assert result.measured == {"stated": "", "wanted": "cc"}
        assert web.asked() == 1
        assert reason(fetch(url, licence="All rights reserved")) == "licence"
        assert isinstance(fetch(url, licence="CC BY-SA 4.0"), Source)
    assert isinstance(fetch(clip), Source)  # one's own file needs nobody's leave


def test_of_each_language_passes_what_its_own_rule_allows(tmp_path, clip):
    fetch = Fetching(tmp_path, licence="per_language")
    with Web() as web:
        url = web.file("/a.mp4", clip)
        assert isinstance(fetch(url, language="de", licence_rule="any"), Source)
        assert [reason(fetch(url, language="pl", licence_rule=rule)) for rule in ("cc", "")] == ["licence"] * 2


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("Creative Commons Attribution license (reuse allowed)", True),
        ("https://creativecommons.org/licenses/by/4.0/", True),
        ("CC BY-NC-SA 4.0", True),
        ("CC0", True),
        ("Public Domain", True),
        ("by-nc-sa", True),
        ("Attribution - Non Commercial - No Derivatives", True),
        ("Attribution-NoDerivs", True),
        ("By permission of the author", False),
        ("Attribution required, all rights reserved", False),
        ("Standard YouTube License", False),
        ("ACC BYLAWS", False),
        ("", False),
    ],
)
def test_licences_are_recognised(licence, free):
    assert is_free(licence) is free


@pytest.mark.parametrize(("limit_px", "chosen"), [(1080, "1080"), (720, "480"), (2160, "2160")])
def test_the_largest_picture_within_the_limit_is_chosen(tmp_path, limit_px, chosen):
    with Web() as web:
        heights = ("480", "1080", "2160")
        for height in heights:
            size = {"width_px": int(height) // 60 * 8, "height_px": int(height) // 60 * 6}
            path = numbered_video(tmp_path / f"{height}.mp4", times_at(Fraction(25), 1), sound=SOUND, **size)
            web.file(f"/{height}.mp4", path)
        sources = "".join(f'<source src="/{h}.mp4" type="video/mp4" res="{h}">' for h in heights)
        fetch = Fetching(tmp_path, max_height_px=limit_px)
        assert isinstance(fetch(web.page("/watch", f"<html><body><video>{sources}</video></body></html>")), Source)
        assert [asked.path for asked in web.requests()] == ["/watch", f"/{chosen}.mp4"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cookies": "no/such.txt"}, "no such file"),
        ({"extractor_args": ("web",)}, "is not like"),
        ({"tries": 0}, "tries"),
    ],
)
def test_a_way_to_the_site_that_cannot_work_is_refused_at_once(wrong, said):
    with pytest.raises(ValueError, match=said):
        Access(**wrong)


@pytest.mark.real
def test_real_footage_over_http_is_fetched_but_for_what_has_no_sound_or_no_picture(tmp_path, shared):
    fetch = Fetching(tmp_path)
    folders = [folder for folder in (shared / "clips").iterdir() if folder.is_dir()]
    paths = [path for folder in folders for path in sorted(folder.iterdir())[-3:]]
    with Web() as web:
        results = {path: fetch(web.file(f"/{path.name}", path)) for path in paths}
    rejected = {path.name: result.reason for path, result in results.items() if isinstance(result, Rejection)}
    index = json.loads((shared / "clips/INDEX.json").read_text())
    silent = {Path(row["file"]).name for row in index if row.get("vcodec") and not row.get("audio")} | {
        "noaudio_en.mp4"
    }
    expected = {path.name: "no_audio" for path in paths if path.name in silent}
    assert rejected == {**expected, **{path.name: "no_video_stream" for path in paths if path.suffix == ".flac"}}
    assert len(results) - len(rejected) > 15


def test_cookies_proxy_and_extractor_arguments_reach_the_site(tmp_path, clip):
    cookies = tmp_path / "cookies.txt"
    with Web() as web, Web() as proxy:
        host = web.host.partition(":")[0]
        cookies.write_text(f"# Netscape HTTP Cookie File\n{host}\tFALSE\t/\tFALSE\t2147483647\tsession\tsecret\n")
        before = cookies.read_bytes()
        url = web.file("/a.mp4", clip)
        args = ("generic:impersonate=;fragment_query=x", "youtube:player_client=web")
        assert isinstance(Fetching(tmp_path, access=Access(cookies=str(cookies), extractor_args=args))(url), Source)
        assert all("session=secret" in asked.headers.get("Cookie", "") for asked in web.requests())
        assert cookies.read_bytes() == before
        proxy.file("/b.mp4", clip)
        proxied = Fetching(tmp_path, access=Access(proxy=proxy.url, tries=1))
        assert isinstance(proxied("http://example.invalid/b.mp4"), Source)
        assert proxy.asked("/b.mp4") >= 1


@pytest.mark.parametrize("limit_bytes_per_s", [None, 1e6])
def test_a_body_that_only_drips_is_given_up(limit_bytes_per_s, tmp_path, clip):
    data = clip.read_bytes()
    access = Access(tries=2, backoff_s=0.05, longest_download_s=1.0, rate_limit_bytes_per_s=limit_bytes_per_s)
    with Web() as web:
        begin = time.monotonic()
        with pytest.raises(NetworkError, match="not done after 1 s"):
            Fetching(tmp_path, access=access)(web.dripping("/a.mp4", data, bytes_per_s=len(data) // 30))
    assert time.monotonic() - begin < 25, "all of it takes 30 s, twice"


def test_how_it_is_fetched_is_not_part_of_what_is_fetched():
    plain: Stage = Fetch()
    polite = Fetch(
        access=Access(proxy="http://p", tries=9), manners=Manners(interval_s=9), pace_url="s3://b", deadline_s=9
    )
    assert plain.identity() == polite.identity()
    assert plain.identity() != Fetch(max_height_px=720).identity()
    assert plain.identity() != Fetch(licence="cc").identity()


def fetch_forever(folder: str, url: str) -> None:
    Fetching(Path(folder))(url)


def test_a_worker_killed_in_the_middle_leaves_nothing_in_the_store_and_the_next_one_succeeds(tmp_path, clip):
    data = clip.read_bytes()
    with Web() as web:
        url = web.dripping("/a.mp4", data, bytes_per_s=len(data) // 20)
        worker = multiprocessing.get_context("spawn").Process(target=fetch_forever, args=(str(tmp_path), url))
        worker.start()
        while web.asked() < 2 and worker.is_alive():  # the page, then the body
            time.sleep(0.02)
        time.sleep(0.5)
        worker.kill()
        worker.join()
        store = Store(str(tmp_path / "store"))
        assert worker.exitcode == -signal.SIGKILL
        assert store.list("blobs") == []
        web.file("/a.mp4", data)
        source = Fetching(tmp_path)(url)
        assert isinstance(source, Source)
        assert store.get(source.file.path) == data
