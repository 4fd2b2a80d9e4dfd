"""Lists that could be read in two ways, or only in part, are refused in one line, and no line of ours shows a login."""

import json

import pytest
from fsspec.implementations.local import LocalFileSystem

from manifests.table import ManifestError, read
from tests.server import Web

LONG = "x" * 140_000  # Python's reader of CSV takes 131,072 characters a field


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("v.tsv", "url\ttitle\na.mp4\tone\rtwo\nb.mp4\tB\n", "line 2: not CSV: a carriage return outside quotes"),
        ("v.tsv", f"url\ttitle\na.mp4\tA\nb.mp4\t{LONG}\n", "line 3: not CSV: field larger than field limit"),
        ("v.tsv", f'url\ttitle\na.mp4\t"A" b\nb.mp4\t{LONG}\n', "line 2: not CSV"),
        ("v.json", '{"a": {"url": "a.mp4"}, "a": {"url": "b.mp4"}}', "the key 'a' stands twice in one object"),
        ("v.json", '[{"url": "a.mp4", "url": "b.mp4"}]', "the key 'url' stands twice in one object"),
        ("v.json", '{"clips": {"a": {"ytb_id": "1", "x": {"b": 1, "b": 2}}}}', "the key 'b' stands twice"),
        ("v.jsonl", '{"url": "a.mp4"}\n{"url": "b.mp4", "url": "c.mp4"}\n', "line 2: the key 'url' stands twice"),
        ("v.json", '{"https://me:Secret@e.org/a": 1, "https://me:Secret@e.org/a": 2}', "the key 'https://***@e.org/a'"),
        ("v.csv", "url,title,url\na.mp4,x,b.mp4\n", "line 1: columns of one name, url, url: only one would count"),
        ("v.csv", "Start (s),url,start-s\n1,a.mp4,2\n", "line 1: columns of one name, Start (s), start-s"),
        ("v.tsv", "sep=;\ntitle;url;Title\nx;a.mp4;y\n", "line 2: columns of one name, title, Title"),
        ("v.csv", "https://me:Secret@e.org/a.mp4\nhttps://me:Secret@e.org/b.mp4\n", "among https://***@e.org/a.mp4;"),
        ("v.txt", "https://youtu.be/abcdefghijk 00:30 01:00\n", "line 1: field url: 'https://youtu.be/abcdefghijk 00"),
        ("v.txt", "# mine\nhttps://youtu.be/abcdefghijk,12,20\n", "field url: 'https://youtu.be/abcdefghijk,12"),
        ("v.txt", "https://youtu.be/abcdefghijk\ta talk\n", "one address a line; columns belong in a .csv"),
        ("v.txt", "https://me:Secret@e.org/a.mp4\t12\n", "'https://***@e.org/a.mp4\\t12': one address a line"),
        ("v.txt", "url,start_s\na.mp4,12\n", "line 1: field url: 'url,start_s': one address a line; columns belong"),
        ("v.csv", '"one\ntwo",three\nx,y\n', "no column url, path or youtube_id among one two, three;"),
    ],
)
def test_a_list_of_two_meanings_is_refused_in_one_line_that_shows_no_login(tmp_path, name, text, said):
    source = tmp_path / name
    source.write_bytes(text.encode())
    with pytest.raises(ManifestError) as caught:
        read(str(source))
    message = str(caught.value)
    assert message.startswith(str(source)) and said in message
    assert "\n" not in message and "Secret" not in message and len(message) < 400


def test_a_text_list_may_have_commas_and_blanks_in_its_addresses_and_comments_behind_them(tmp_path):
    rows = [
        "https://e.org/youtube.com/7,114884,31234567,a.html",
        "https://e.org/my talk 2.mp4",
        "Https://youtu.be/abcdefghijk  # mine",
        "talk, part #2.mp4",
    ]
    (tmp_path / "v.txt").write_text("\n".join(rows))
    assert [video.url for video in read(str(tmp_path / "v.txt"))] == [
        *rows[:2],
        "https://www.youtube.com/watch?v=abcdefghijk",
        str(tmp_path / rows[3]),
    ]


def test_blanks_behind_commas_are_not_read(tmp_path):
    (tmp_path / "v.csv").write_text('"youtube_id", "start_s", "title"\n abcdefghijk, 12.5, "so, so"\n')
    (video,) = read(str(tmp_path / "v.csv"))
    assert (video.url[-11:], video.start_s, video.title) == ("abcdefghijk", 12.5, "so, so")


@pytest.mark.parametrize("address", ["videoseries?list=PL1", "live_stream?channel=UC1"])
def test_a_player_of_more_than_one_video_is_not_taken_for_one(tmp_path, address):
    (tmp_path / "v.txt").write_text(f"https://www.youtube.com/embed/{address}\n")
    assert [video.url for video in read(str(tmp_path / "v.txt"))] == [f"https://www.youtube.com/embed/{address}"]


def test_a_timecode_with_frames_is_no_time(tmp_path):
    (tmp_path / "v.csv").write_text("url,start_s\na.mp4,00:01:30:12\n")
    with pytest.raises(ManifestError, match="line 2: field start_s: '00:01:30:12' is not a time"):
        read(str(tmp_path / "v.csv"))


def test_columns_that_nobody_uses_may_have_one_name(tmp_path):
    (tmp_path / "v.csv").write_text("url,note,note\na.mp4,x,y\n")
    assert len(read(str(tmp_path / "v.csv"))) == 1


@pytest.mark.parametrize("time", ["1:-30", "1:+30", "-1:90", "0:1:-5"])
def test_a_sign_inside_a_time_is_refused(tmp_path, time):
    (tmp_path / "v.csv").write_text(f"url,start_s,end_s\na.mp4,{time},99\n")
    with pytest.raises(ManifestError, match=r"line 2: field start_s: .* is not a time in seconds or h:mm:ss"):
        read(str(tmp_path / "v.csv"))


def test_beside_an_id_an_address_counts_and_a_file_that_is_there_and_else_the_id(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"x")
    there, web = ["clips/a.mp4", f"{tmp_path}/clips/a.mp4"], ["https://mirror.example/a.mp4", "www.e.org/b.mp4"]
    rows = [f"{row},abcdefghij{n}\n" for n, row in enumerate([*there, "clips/gone.mp4", *web])]
    (tmp_path / "v.csv").write_text("path,youtube_id\n" + "".join(rows))
    assert [video.url for video in read(str(tmp_path / "v.csv"))] == [
        str(tmp_path / "clips" / "a.mp4"),
        "https://www.youtube.com/watch?v=abcdefghij2",
        "https://mirror.example/a.mp4",
        "https://www.e.org/b.mp4",
    ]


def test_where_nothing_stands_beside_an_id_no_file_is_looked_for(tmp_path, monkeypatch):
    """Of a million rows that took half of the time."""
    monkeypatch.setattr(LocalFileSystem, "isfile", lambda *_: pytest.fail("looked for a file"))
    (tmp_path / "v.csv").write_text("youtube_id,path\nabcdefghij1,\nabcdefghij2,\n")
    assert len(read(str(tmp_path / "v.csv"))) == 2


def test_what_an_entry_states_itself_counts_before_what_it_holds_within(tmp_path):
    (tmp_path / "v.jsonl").write_text('{"url": "a.mp4", "of": {"url": "b.mp4", "language": "de"}, "language": "pl"}\n')
    (video,) = read(str(tmp_path / "v.jsonl"))
    assert (video.url, video.language) == (str(tmp_path / "a.mp4"), "pl")


def test_beside_what_names_the_video_the_addresses_of_other_things_are_none(tmp_path):
    entry = {"youtube_id": "abcdefghijk ", "thumbnail": {"url": "https://i.ytimg.com/vi/abcdefghijk/default.jpg"}}
    (tmp_path / "v.json").write_text(json.dumps([entry]))
    assert [video.url for video in read(str(tmp_path / "v.json"))] == ["https://www.youtube.com/watch?v=abcdefghijk"]


@pytest.mark.parametrize("name", ["list.xlsx", "list.CSV.gz", "videos.zip", "list.m3u8"])
def test_a_spreadsheet_or_an_archive_is_no_video_and_says_what_would_be_a_list(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ManifestError, match=f"{name}: save or unpack it as one of .csv .json "):
        read(str(tmp_path / name))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.mp4").write_bytes(b"x")
    (tmp_path / "folder").rename(tmp_path / f"of-{name}")
    assert len(read(str(tmp_path / f"of-{name}"))) == 1, "a folder may be called so"


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_list_that_a_web_server_refuses_says_what_it_answered(status):
    with Web() as web:
        web.status("/list.csv", status)
        with pytest.raises(ManifestError, match=rf"/list.csv: {status}, message="):
            read(f"{web.url}/list.csv")
    with pytest.raises(ManifestError, match=r"/list.csv: Cannot connect to host"):
        read(f"{web.url}/list.csv")
