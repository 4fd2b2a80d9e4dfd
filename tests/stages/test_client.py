"""A page of any size costs little, and no file that a page or a download names is opened."""

import gzip
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from yt_dlp.downloader.external import FFmpegFD
from yt_dlp.extractor.generic import GenericIE
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.postprocessor.ffmpeg import FFmpegFixupPostProcessor, FFmpegMergerPP, FFmpegPostProcessorError
from yt_dlp.utils import YoutubeDLError

from manifests.languages import Language
from manifests.records import Source
from pipeline.stage import Rejection
from stages import client as bounds
from stages.client import client
from stages.discover import Discovery, discover
from stages.ffmpeg import bounded_ffmpeg, ffmpeg_path
from stages.politeness import SharedPace
from stages.site import Site
from tests.media import Sound, hum, numbered_video, times_at
from tests.server import Web
from tests.stages.fetching import ACCESS, MANNERS, Fetching

PAGE = b"<!doctype html><html><body>" + b" " * (1 << 20)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """No page of more than 100 kB."""
    monkeypatch.setattr(bounds, "_LARGEST_PAGE_BYTES", 100_000)


def page(web: Web, *, packed: bool, status: int = 200) -> str:
    body = gzip.compress(PAGE) if packed else PAGE
    headers = {"Content-Encoding": "gzip"} if packed else {}

    def answer(handler):
        handler.send_head(len(body), "text/html", status, headers)
        handler.wfile.write(body)

    return web.route("/endless", answer)


@pytest.mark.parametrize("packed", [False, True])
def test_a_page_without_end_is_no_video_and_no_listing(packed, tmp_path):
    site = Site(ACCESS, SharedPace(str(tmp_path / "pace"), MANNERS))
    with Web() as web:
        url = page(web, packed=packed)
        result = Fetching(tmp_path)(url)
        assert isinstance(result, Rejection) and result.reason == "not_a_video"
        assert "goes on after" in result.measured["said"] and web.asked() == 1
        with pytest.raises(LookupError, match=f"{url}: not_a_video: .*goes on after"):
            list(site.entries(url))


@pytest.mark.parametrize("error", [YoutubeDLError("goes on"), ValueError("Invalid IPv6 URL"), TypeError("of None")])
def test_a_listing_whose_next_page_is_no_use_names_its_host(error, tmp_path):
    def entries():
        yield {"url": "a"}
        raise error

    listing = Site(ACCESS, SharedPace(str(tmp_path), MANNERS))._listing("example.org", entries())
    assert next(listing) == {"url": "a"}
    with pytest.raises(LookupError, match=f"example.org: {error}"):
        next(listing)


@pytest.mark.parametrize("said", [AttributeError("'NoneType' object has no attribute 'get'"), None])
def test_a_page_that_its_extractor_no_longer_reads_costs_only_itself(said, tmp_path, monkeypatch, caplog):
    """`None`: that the extractor says nothing."""

    def extracted(self, url):
        if said is not None:
            raise said

    monkeypatch.setattr(GenericIE, "_real_extract", extracted)
    (tmp_path / "own.mp4").write_bytes(b"")
    with Web() as web:
        where = {"urls": (web.page("/a", "changed"),), "files": (str(tmp_path / "own.mp4"),)}
        language = Language(tag="pl", name="Polish", own_name="polski", hours=1, **where)
        access, pace = replace(ACCESS, tries=1), SharedPace(str(tmp_path / "pace"), MANNERS)
        videos = list(discover(language, 1.0, Discovery(), access, pace))
    assert [video.url for video in videos] == [str(tmp_path / "own.mp4")]
    assert f"{web.host}: the extractor cannot read this page" in caplog.text


def test_the_page_of_an_error_is_bounded_too():
    with Web() as web, client({"quiet": True}) as ydl:
        with pytest.raises(HTTPError) as caught:
            ydl.urlopen(page(web, packed=True, status=403))
        with pytest.raises(YoutubeDLError, match="goes on after"):
            caught.value.response.read()


def test_a_page_within_the_bound_arrives_whole_and_a_download_may_have_any_size(tmp_path):
    clip = numbered_video(tmp_path / "a.mp4", times_at(Fraction(25), 4), sound=Sound(samples=hum(4)))
    with Web() as web, client({"quiet": True}) as ydl:
        body = bytes(range(256)) * 390
        assert ydl.urlopen(web.file("/page", body, kind="text/html")).read() == body
        large = clip.read_bytes() + (100_008).to_bytes(4) + b"free" + bytes(100_000)
        source = Fetching(tmp_path)(web.file("/a.mp4", large))
    assert isinstance(source, Source) and source.file.size_bytes == len(large)


@pytest.fixture
def named(tmp_path) -> Path:
    """A list of pieces that names a file of this machine."""
    clip = numbered_video(tmp_path / "own.mp4", times_at(Fraction(25), 1), sound=Sound(samples=hum(1)))
    subprocess.run([ffmpeg_path(), "-v", "error", "-i", clip, "-c", "copy", tmp_path / "own.ts"], check=True)
    path = tmp_path / "named.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/own.ts\n#EXT-X-ENDLIST\n")
    return path


def test_ffmpeg_opens_no_file_but_those_that_were_downloaded(named, tmp_path):
    options = {"quiet": True, "ffmpeg_location": str(bounded_ffmpeg(tmp_path, 60))}
    kinds = [kind for kind in vars(sys.modules["yt_dlp.YoutubeDL"]).values() if isinstance(kind, type)]
    repairs = [kind for kind in kinds if issubclass(kind, FFmpegFixupPostProcessor)]
    with client(options) as ydl:
        assert repairs
        for kind in (FFmpegMergerPP, *repairs):
            with pytest.raises(FFmpegPostProcessorError):
                kind(ydl).run_ffmpeg(str(named), str(tmp_path / "merged.mp4"), ["-c", "copy"])
        downloader = FFmpegFD(ydl, ydl.params)
        info = {"url": f"file://{named}", "protocol": "m3u8", "ext": "mp4"}
        assert downloader._call_downloader(str(tmp_path / "loaded.mp4"), info) != 0
    assert not (tmp_path / "merged.mp4").exists() and not (tmp_path / "loaded.mp4").exists()


def test_a_merge_that_finds_no_room_says_so_in_the_words_of_the_system(named, tmp_path):
    """By which a full disk is told from a bad file; ffmpeg's last line is "Conversion failed!"."""
    program, own = tmp_path / "small" / "ffmpeg", str(named.with_name("own.mp4"))
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 4\nexec {ffmpeg_path()} \"$@\"\n")
    program.chmod(0o755)
    with client({"quiet": True, "ffmpeg_location": str(program)}) as ydl:
        with pytest.raises(FFmpegPostProcessorError, match="File too large"):
            FFmpegMergerPP(ydl).run_ffmpeg_multiple_files([own, own], str(tmp_path / "merged.mp4"), ["-c", "copy"])
