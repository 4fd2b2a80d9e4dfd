"""Results name the video as its site and its manifest do now, and times as whoever opens the address counts them."""

import dataclasses
import json

import pytest

from manifests.records import Video
from manifests.store import Store
from stages.catalogue import CLIPS, VIDEOS, read_catalogue, write_catalogue
from stages.judge import judge
from stages.origin import Origin, origin_of
from stages.policies import PAPER
from stages.shard import entries
from tests.stages.measured import clip, measured, source

MANIFEST = Video(id="v0", url="http://a/r", title="Corrected", channel="Anna", licence="CC0")


@pytest.mark.parametrize("extractor", ["file", "generic"])
def test_a_correction_in_the_manifest_reaches_what_was_fetched_before(extractor):
    frozen = source(extractor=extractor, page_url="http://b/v.mp4?t=1", title="Wrong", uploader="X", licence="CC BY")
    told = origin_of(MANIFEST, frozen)
    assert told == Origin(url="http://a/r", title="Corrected", channel="Anna", uploader="Anna", licence="CC0")
    assert origin_of(dataclasses.replace(MANIFEST, title=""), frozen).title == "Wrong"
    assert origin_of(MANIFEST, None) == told


def test_results_name_no_login_at_an_address():
    private = dataclasses.replace(MANIFEST, url="https://me:s%40ft@host:81/@me/a.mp4?at=b@c")
    assert origin_of(private, None).url == "https://host:81/@me/a.mp4?at=b@c"
    paged = source(extractor="vimeo", page_url="https://me@host/1")
    assert origin_of(private, paged).url == "https://host/1"
    for plain in ("https://www.youtube.com/@me", "file:///a@b/c.mp4", "s3://bucket/a@b.mp4", "/a/b@c.mp4"):
        assert origin_of(dataclasses.replace(MANIFEST, url=plain), None).url == plain


def test_a_site_knows_better_than_the_manifest_where_it_says_something():
    page = source(extractor="youtube", page_url="http://y/1", uploader="Bo", uploader_url="http://b", licence="CC BY")
    told = origin_of(MANIFEST, page)
    assert told == Origin(url="http://y/1", title="Corrected", channel="http://b", uploader="Bo", licence="CC BY")


def test_times_of_a_part_s_clips_are_those_of_the_address_beside_them(tmp_path):
    """Asked for from 6.01 s on; the picture shown then begins at 6.0 s."""
    found = measured("v0", clips=(clip("v0", start_s=4.04),))
    video = dataclasses.replace(found.video, start_s=6.01, end_s=14.0, title="Corrected")
    part = dataclasses.replace(found, video=video, source=source(start_s=6.0, extractor="file", title="Wrong"))
    verdicts = judge([part], PAPER)
    (entry,) = entries([part], verdicts)
    about = json.loads(entry.description)
    assert (about["start_sec"], about["end_sec"], about["url"]) == (10.04, 14.04, video.url)
    assert (about["title"], about["licence"]) == ("Corrected", "CC BY 4.0")
    store = Store(str(tmp_path))
    write_catalogue(store, [part], verdicts, PAPER)
    (row,), (whole,) = read_catalogue(store, CLIPS).to_pylist(), read_catalogue(store, VIDEOS).to_pylist()
    assert (row["start_s"], row["end_s"], row["title"]) == (10.04, 14.04, "Corrected")
    assert (whole["start_s"], whole["end_s"], whole["url"]) == (6.01, 14.0, video.url)
