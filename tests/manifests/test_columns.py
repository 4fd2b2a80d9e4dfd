"""What a list calls its entries stays with them, and rows that come to nothing are told."""

import dataclasses
import json

from manifests.store import Store
from manifests.table import read
from stages.catalogue import CLIPS, write_catalogue
from stages.judge import judge
from stages.policies import PAPER
from tests.manifests.lists import to_json_lines
from tests.stages.measured import measured


def test_what_a_list_calls_an_entry_stays_with_it(tmp_path):
    """A column, or in lists of CelebV and MultiTalk the key of the entry, which is the name of the clip to be."""
    (tmp_path / "a.csv").write_text("name,url\nfirst,a.mp4\n,b.mp4\n")
    assert [video.name for video in read(str(tmp_path / "a.csv"))] == ["first", ""]
    entries = {
        "-bE1_0": {"ytb_id": "-bE1bE1bE1b", "duration": {"start_sec": 1, "end_sec": 4}},
        "-bE1_1": {"ytb_id": "-bE1bE1bE1b", "duration": {"start_sec": 5, "end_sec": 9}, "name": "its own"},
    }
    for said in ({"clips": entries}, entries):
        (tmp_path / "b.json").write_text(json.dumps(said))
        assert [video.name for video in read(str(tmp_path / "b.json"))] == ["-bE1_0", "its own"]
    (tmp_path / "c.jsonl").write_bytes(to_json_lines(read(str(tmp_path / "b.json"))))
    assert read(str(tmp_path / "c.jsonl")) == read(str(tmp_path / "b.json"))


def test_clips_of_our_own_table_are_called_by_their_keys_where_their_video_has_no_name(tmp_path):
    store, found = Store(str(tmp_path)), [measured("v1"), measured("v2")]
    found[1] = dataclasses.replace(found[1], video=dataclasses.replace(found[1].video, name="second"))
    write_catalogue(store, found, judge(found, PAPER), PAPER)
    assert [video.name for video in read(str(tmp_path / CLIPS))] == ["v1-0000", "second"]


def test_a_name_is_no_part_of_what_a_video_is():
    from manifests.records import Video

    assert Video.of("https://example.org/a.mp4", name="x").id == Video.of("https://example.org/a.mp4").id


def test_rows_that_name_what_a_row_before_them_names_are_counted_in_one_line(tmp_path, caplog):
    (tmp_path / "a.csv").write_text(
        "url,start_s,end_s,language\na.mp4,1,2,de\na.mp4,1,2,en\na.mp4,1,2,de\na.mp4,2,3,en\n"
    )
    assert [video.language for video in read(str(tmp_path / "a.csv"))] == ["de", "en"]
    (said,) = caplog.messages
    assert said.endswith("one before them has, whose word counts: 2, in another language: 1")


def test_of_several_addresses_that_a_row_states_the_page_on_the_web_counts(tmp_path):
    """Rows of `yt-dlp -j` have the address of the data too, which holds for hours; others the name of a clip to be."""
    rows = [
        {"url": "https://data.example.org/a?expires=1", "webpage_url": "https://example.org/a", "startTime": 1.5},
        {"file": "0001.mp4", "video_url": "https://example.org/b", "end_timestamp": "0:02.5"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = read(str(tmp_path / "a.jsonl"))
    assert (first.url, first.start_s) == ("https://example.org/a", 1.5)
    assert (second.url, second.end_s) == ("https://example.org/b", 2.5)
