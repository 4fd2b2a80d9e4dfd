"""Text that no UTF-8 can hold, of pages, lists and file names: it is mended, or told in one line, and ends no run."""

import json
import os

import pytest

from manifests.codec import to_json
from manifests.records import Video
from manifests.table import ManifestError, read
from manifests.text import storable

SMILE, HALF = "\ud83d\ude00", "\ud83d"


def test_halves_of_a_pair_are_joined_and_what_stays_alone_is_replaced():
    assert storable(f"é {SMILE}{HALF}x \udce9\ufeff") == "é 😀\ufffdx \ufffd\ufeff"
    assert storable({"a": [SMILE, 1, None], HALF: ("b",)}) == {"a": ["😀", 1, None], "\ufffd": ["b"]}


def test_a_record_with_half_a_letter_is_written_all_the_same():
    assert json.loads(to_json(Video.of("a.mp4", title=f"{SMILE} {HALF}")))["title"] == "😀 \ufffd"


def test_a_list_with_half_a_letter_in_a_title_is_read_so_that_it_can_be_written(tmp_path):
    path = tmp_path / "v.jsonl"
    path.write_text(json.dumps({"url": "a.mp4", "title": f"a {HALF}"}))
    assert [video.title for video in read(str(path))] == ["a \ufffd"]


@pytest.mark.parametrize("url", [f"a{HALF}.mp4", f"https://example.org/{HALF}", "a\0.mp4", "https://example.org/\0"])
def test_an_address_with_what_none_can_have_is_named_with_place_and_field(url, tmp_path):
    path = tmp_path / "v.jsonl"
    path.write_text('"b.mp4"\n' + json.dumps({"url": url}))
    with pytest.raises(ManifestError) as caught:
        read(str(path))
    assert str(caught.value).startswith(f"{path}: line 2: field url: {url!a} cannot be an address")


def test_a_file_whose_name_is_not_utf_8_is_passed_over_and_told_and_the_folder_is_read(tmp_path, caplog):
    for name in (b"caf\xe9.mp4", b"good.mp4", b"notes.t\xe9"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    assert [video.url for video in read(str(tmp_path))] == [str(tmp_path / "good.mp4")]
    assert caplog.messages == [
        f"{tmp_path}: 1 other files passed over: .t\ufffd",
        f"{tmp_path}: 1 videos passed over, whose names are not UTF-8: 'caf\\udce9.mp4'",
    ]
    with pytest.raises(ManifestError, match=r"field url: .*caf\\udce9\.mp4' cannot be an address"):
        read(str(tmp_path / "caf\udce9.mp4"))


def test_a_path_that_starts_at_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "v.txt").write_text("a.mp4\n")
    with pytest.raises(ManifestError, match=r"line 1: field url: 'a\.mp4' cannot be an address: it holds what is not"):
        read(str(folder / "v.txt"))
