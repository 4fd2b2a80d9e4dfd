"""A host that wants to be left alone is, by all workers, and no video is taken for bad because of it."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest

from manifests.records import Source
from pipeline.stage import PostponedError, deadline
from stages.politeness import HostClosedError, Manners, SharedPace
from stages.site import Access, Downloaded, Site
from tests.media import Sound, hum, numbered_video, times_at
from tests.server import Web
from tests.stages.fetching import ACCESS, MANNERS, Fetching, keep_the_interval, reason


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Four seconds with picture and sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return numbered_video(path, times_at(Fraction(25), 4), sound=Sound(samples=hum(4)))


@pytest.fixture
def fetch(tmp_path) -> Fetching:
    return Fetching(tmp_path)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(fetch, clip, status):
    with Web() as web:
        web.file("/a.mp4", clip)
        assert isinstance(fetch(web.status("/a.mp4", status, {"Retry-After": "2"}, times=1)), Source)
        first, second, *_ = (asked.at_s for asked in web.requests())
    assert 2.0 <= second - first < 20.0


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_for_other_workers_too(tmp_path, clip, status):
    with Web() as web:
        web.file("/b.mp4", clip)
        url = web.status("/a.mp4", status, {"Retry-After": "2"})
        one = Fetching(tmp_path, access=Access(tries=1, backoff_s=0.05))
        with pytest.raises(HostClosedError):
            one(url)
        assert isinstance(Fetching(tmp_path)(f"{web.url}/b.mp4"), Source)
        (first,), (second, *_) = web.requests("/a.mp4"), web.requests("/b.mp4")
    assert second.at_s - first.at_s >= 2.0


@pytest.mark.parametrize("status", [429, 503])
def test_a_host_that_is_away_for_an_hour_holds_no_worker_up(fetch, status):
    with Web() as web:
        with pytest.raises(HostClosedError, match=r"not asked for another 3[56]"):
            fetch(web.status("/a.mp4", status, {"Retry-After": "3600"}))
        assert web.asked() == 1


def test_pieces_that_a_host_refuses_are_not_asked_for_again_at_once(tmp_path):
    body = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}/0.ts\n#EXT-X-ENDLIST"
    with Web() as web:
        web.status("/0.ts", 429)
        with pytest.raises(HostClosedError, match="429"):
            Fetching(tmp_path, access=Access(tries=1, backoff_s=0.2))(
                web.page("/a.m3u8", body, kind="application/vnd.apple.mpegurl")
            )
        asked = [asked.at_s for asked in web.requests("/0.ts")]
    assert len(asked) == 4
    assert all(later - at >= 0.2 * 2**n - 0.01 for n, (at, later) in enumerate(itertools.pairwise(asked)))


@pytest.mark.parametrize("name", ["how-captcha-works", "rate-limit", "log%20in%20to%20me", "I%20am%20not%20a%20bot"])
def test_the_name_of_a_file_or_page_is_no_word_of_its_host(fetch, name):
    with Web() as web:
        assert reason(fetch(web.status(f"/{name}.mp4", 404))) == "gone"
        assert reason(fetch(web.page(f"/{name}", "<html><body>Nothing here.</body></html>"))) == "not_a_video"
        assert web.asked() == 2


def test_a_host_that_says_412_as_bilibili_does_wants_to_be_left_alone(fetch):
    with Web() as web:
        with pytest.raises(HostClosedError, match="412"):
            fetch(web.status("/a.mp4", 412))


def test_a_host_that_keeps_saying_too_many_is_asked_a_few_times_and_no_video_is_burned(fetch):
    with Web() as web:
        urls = [web.status(f"/{n}.mp4", 429) for n in range(30)]
        begin = time.monotonic()
        for url in urls:
            with pytest.raises(PostponedError):
                fetch(url)
        assert web.asked() == MANNERS.refusals
        assert time.monotonic() - begin < 60


@pytest.fixture
def telling(monkeypatch) -> None:
    """Pages are read as YouTube's own extractor does: the text of the page is the reason why it has no formats."""
    from yt_dlp.extractor.generic import GenericIE

    def extract(self: GenericIE, url: str) -> None:
        self.raise_no_formats(self._download_webpage(url, "x"), expected=True)

    monkeypatch.setattr(GenericIE, "_real_extract", extract)


@pytest.mark.usefixtures("telling")
def test_a_host_that_asks_whether_we_are_a_bot_is_left_alone_and_no_video_is_burned(fetch):
    said = "Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies for the authentication."
    with Web() as web:
        for n in range(20):
            with pytest.raises(HostClosedError):
                fetch(web.page(f"/{n}", said))
        assert web.asked() == MANNERS.refusals


@pytest.mark.usefixtures("telling")
def test_a_look_at_a_page_hears_what_it_says_as_a_download_does_and_opens_no_closed_host(tmp_path):
    site = Site(ACCESS, SharedPace(str(tmp_path), MANNERS))
    with Web() as web:
        assert reason(site.look(web.page("/gone", "Video unavailable"))) == "gone"
        for n in range(9):
            with pytest.raises(HostClosedError):
                site.look(web.page(f"/{n}", "Sign in to confirm you're not a bot"))
        assert web.asked() == 1 + MANNERS.refusals


@pytest.mark.usefixtures("telling")
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Private video. Sign in if you've been granted access to this video", "private"),
        ("Join this channel to get access to members-only content like this video.", "members_only"),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", "age"),
        ("The uploader has not made this video available in your country", "geo"),
        ("Video unavailable. This video has been removed by the uploader", "gone"),
        ("This live event will begin in 3 hours.", "live"),
        ("This video is DRM protected", "blocked"),
    ],
)
def test_what_a_site_says_of_a_video_is_its_reason(fetch, said, expected):
    with Web() as web:
        result = fetch(web.page("/watch", said))
        assert reason(result) == expected
        assert said[:30] in str(result.measured["said"])
        assert web.asked() == 1


def test_a_closed_host_does_not_close_others(fetch, clip):
    with Web() as bad, Web() as good:
        url = bad.status("/a.mp4", 429)
        for _ in range(3):
            with pytest.raises(HostClosedError):
                fetch(url)
        assert isinstance(fetch(good.file("/a.mp4", clip)), Source)


def test_files_that_a_host_forbids_are_blocked_one_by_one_until_it_looks_like_us(fetch):
    with Web() as web:
        results = []
        for n in range(10):
            try:
                results.append(reason(fetch(web.status(f"/{n}.mp4", 403))))
            except HostClosedError:
                results.append("postponed")
        assert results == ["blocked"] * 3 + ["postponed"] * 7
        assert web.asked() == 3


def test_a_gone_video_between_forbidden_ones_shows_that_the_host_talks_to_us(fetch):
    with Web() as web:
        urls = [web.status(f"/{n}.mp4", 404 if n % 3 == 2 else 403) for n in range(9)]
        assert [reason(fetch(url)) for url in urls] == ["blocked", "blocked", "gone"] * 3


def test_the_interval_between_videos_holds(tmp_path, clip):
    fetch = Fetching(tmp_path, manners=Manners(interval_s=0.7))
    with Web() as web:
        for n in range(3):
            fetch(web.file(f"/{n}.mp4", clip))
        taken = [web.requests(f"/{n}.mp4")[0].at_s for n in range(3)]
    keep_the_interval(fetch.store, taken, 0.7)


def test_the_rate_limit_is_that_of_all_workers_together(tmp_path, clip, monkeypatch):
    for module in ("stages.site", "stages.fetch"):
        monkeypatch.setattr(f"{module}.TRAFFIC", Manners(interval_s=0.4))
    data = clip.read_bytes()
    access = Access(rate_limit_bytes_per_s=len(data) / 0.4 / 1.9)  # each of two files takes two turns
    with Web() as web, ThreadPoolExecutor() as pool:
        urls = [web.file(f"/{n}.mp4", data) for n in range(2)]
        begin = time.monotonic()
        results = list(pool.map(lambda url: Fetching(tmp_path, access=access)(url), urls))
    assert all(isinstance(result, Source) for result in results)
    assert time.monotonic() - begin >= 3 * 0.4


class Slow:
    """A pace at which a turn takes a hundred minutes, by a clock that only it moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.turns = 0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def ask(self, host: str) -> None:
        self.now_s += 6000.0
        self.turns += 1

    def served(self, host: str) -> None:
        pass


def test_no_download_is_given_up_for_the_time_that_it_waited_for_us(tmp_path, clip, monkeypatch):
    access, slow, armed = Access(tries=3, rate_limit_bytes_per_s=clip.stat().st_size / 9.5), Slow(), []
    monkeypatch.setattr("stages.site.time", slow)
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda seconds, **_: armed.append(seconds))
    with Web() as web, deadline(9000.0):
        web.file("/a.mp4", clip)
        url = web.status("/a.mp4", 500, times=2)
        within = {"max_height_px": 96, "max_size_bytes": 1 << 20, "vet": lambda _: None}
        found = Site(access, slow, slow).download(url, tmp_path, **within)
    assert isinstance(found, Downloaded) and found.path.read_bytes() == clip.read_bytes()
    assert slow.turns == 3 + 10, "for each try, and for each share of the rate"
    assert armed == [9000.0] * (1 + slow.turns), "each turn puts the deadline off"


def test_data_that_is_forbidden_after_its_page_was_served_is_no_fact_about_the_video(fetch):
    with Web() as web:
        web.status("/data.mp4", 403)
        for n in range(10):
            with pytest.raises(HostClosedError):
                fetch(web.video_page(f"/{n}", "/data.mp4"))
        assert web.asked("/data.mp4") == MANNERS.refusals


def test_pieces_of_a_stream_that_are_forbidden_are_no_fact_about_the_video_either(fetch):
    body = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}/0.ts\n#EXT-X-ENDLIST"
    with Web() as web:
        web.status("/0.ts", 403)
        for n in range(MANNERS.refusals + 1):
            with pytest.raises(HostClosedError):
                fetch(web.page(f"/{n}.m3u8", body, kind="application/vnd.apple.mpegurl"))
        assert web.asked("/0.m3u8") and not web.asked(f"/{MANNERS.refusals}.m3u8")
