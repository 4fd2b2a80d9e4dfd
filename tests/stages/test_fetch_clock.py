"""Picture and sound keep the clock they had, where they come apart, are copied in part or are encoded anew."""

import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from manifests.records import Source
from stages.ffmpeg import ffmpeg_path
from stages.media import audio_array, frames, probe
from tests.media import (
    Look,
    Sound,
    click_times,
    clicks,
    hum,
    numbered_video,
    read_number,
    times_at,
    times_variable,
)
from tests.server import Web
from tests.stages.fetching import Fetching

CLICKS_S = [0.4, 1.0, 3.0, 4.5]
HLS, DASH = "application/vnd.apple.mpegurl", "application/dash+xml"
AT_10_S = ("-copyts", "-output_ts_offset", "10", "-muxdelay", "0", "-avoid_negative_ts", "disabled")


def shown(path: Path, **span: float | None) -> list[int]:
    return [read_number(image) for batch in frames(path, **span) for image in batch.images]


def remade(path: Path, out: Path, *options: str) -> Path:
    subprocess.run([ffmpeg_path(), "-v", "error", "-i", path, *options, out], check=True)
    return out


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Six seconds of 29.97 fps with two pictures held back for their order, and clicks in AAC, which begins before."""
    path = tmp_path_factory.mktemp("clock") / "clip.mp4"
    sound = Sound(samples=clicks(CLICKS_S, 6.0))
    plain = numbered_video(path.with_suffix(".mkv"), times_at(Fraction(30_000, 1001), 6), look=Look(gop=1), sound=sound)
    order = ("-x264-params", "keyint=24:min-keyint=24:scenecut=0:b-adapt=0:bframes=3:b-pyramid=normal")
    return remade(plain, path, "-c:v", "libx264", *order, "-c:a", "aac")


def hls_pair(web: Web, clip: Path, folder: Path) -> str:
    """Transport streams as packagers cut them: pictures from 10 s, the sound's first packet a little before."""
    for name, kind in (("picture", "-an"), ("sound", "-vn")):
        path = remade(clip, folder / f"{name}.ts", "-c", "copy", kind, *AT_10_S)
        web.file(f"/{name}.ts", path, kind="video/mp2t")
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:6", "#EXTINF:6,", f"{name}.ts", "#EXT-X-ENDLIST"]
        web.page(f"/{name}.m3u8", "\n".join(lines), kind=HLS)
    lines = [
        "#EXTM3U",
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="spoken",DEFAULT=YES,AUTOSELECT=YES,URI="sound.m3u8"',
        '#EXT-X-STREAM-INF:BANDWIDTH=200000,RESOLUTION=160x96,CODECS="avc1.64000a,mp4a.40.2",AUDIO="a"',
        "picture.m3u8",
    ]
    return web.page("/master.m3u8", "\n".join(lines), kind=HLS)


def dash_pair(web: Web, picture: Path, codec: str, sound: Path) -> str:
    """Two files, each from 0, as YouTube has them."""
    web.file(f"/{picture.name}", picture)
    web.file(f"/{sound.name}", sound)
    kind, size = f"video/{picture.suffix[1:]}", 'width="160" height="96"'
    body = f"""<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT6S"><Period>
<AdaptationSet mimeType="{kind}"><Representation id="v" codecs="{codec}" {size} bandwidth="100000">
<BaseURL>{picture.name}</BaseURL></Representation></AdaptationSet>
<AdaptationSet mimeType="audio/mp4"><Representation id="a" codecs="mp4a.40.2" bandwidth="64000">
<BaseURL>{sound.name}</BaseURL></Representation></AdaptationSet>
</Period></MPD>"""
    return web.page("/talk.mpd", body, kind=DASH)


@pytest.mark.parametrize("kind", ["hls", "mp4", "webm"])
def test_picture_and_sound_that_come_apart_stay_as_they_were_to_each_other(clip, tmp_path, kind):
    fetch = Fetching(tmp_path)
    with Web() as web:
        if kind == "hls":
            url = hls_pair(web, clip, tmp_path)
        else:
            sound = remade(clip, tmp_path / "sound.m4a", "-vn", "-c", "copy")
            vp9 = ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
            coding = vp9 if kind == "webm" else ("copy",)
            picture = remade(clip, tmp_path / f"picture.{kind}", "-an", "-c:v", *coding)
            url = dash_pair(web, picture, "vp9" if kind == "webm" else "avc1.64000a", sound)
        source = fetch(url)
    assert isinstance(source, Source)
    merged = fetch.store.get_file(source.file.path, tmp_path)
    both = zip(shown(merged, end_s=5.0), shown(clip, end_s=5.0), strict=True)
    assert all(abs(found - true) <= 1 for found, true in both), "Matroska's whole milliseconds tip the balance at times"
    assert click_times(audio_array(merged, start_s=0.0, end_s=5.0)) == pytest.approx(CLICKS_S, abs=0.003)
    assert source.duration_s == pytest.approx(probe(clip).duration_s, abs=0.002)


@pytest.mark.parametrize("options", [("-use_editlist", "0"), ("-movflags", "empty_moov+frag_keyframe"), ()])
@pytest.mark.parametrize("start_s", [0.0, 2.3, 2.34, 2.37, 2.41])
def test_a_part_begins_with_the_picture_shown_at_its_start_with_an_edit_list_or_without(
    clip, tmp_path, options, start_s
):
    """A key frame is shown at 2.402 s, and decoded two pictures before."""
    path = remade(clip, tmp_path / "a.mp4", "-c", "copy", *options)
    fetch = Fetching(tmp_path)
    source = fetch(path, start_s=start_s, end_s=start_s + 2)
    assert isinstance(source, Source)
    part = fetch.store.get_file(source.file.path, tmp_path)
    whole = shown(path, start_s=source.start_s, end_s=source.start_s + 1.8)
    assert whole[0] == int((start_s + 0.0005) * 30_000 / 1001)
    assert shown(part, end_s=1.8) == whole


def test_a_part_that_is_encoded_anew_shows_the_pictures_of_a_variable_rate_when_the_whole_file_does(tmp_path):
    """As phones have it: half a second with 20 fps, half a second with 30, and so on."""
    times = times_variable(6)
    sound = Sound(samples=hum(6), codec="libopus")
    path = numbered_video(tmp_path / "a.webm", times, look=Look(codec="libvpx", b_frames=0), sound=sound)
    fetch = Fetching(tmp_path)
    source = fetch(path, start_s=1.37, end_s=5.37)
    assert isinstance(source, Source)
    part = fetch.store.get_file(source.file.path, tmp_path)
    assert shown(part, end_s=3.5) == shown(path, start_s=source.start_s, end_s=source.start_s + 3.5)
