"""Lists of videos are read in every layout that people have, and a mistake in them is named to the field."""

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from manifests.records import Video
from manifests.table import ManifestError, read
from manifests.urls import canonical
from tests.manifests.lists import to_json_lines

EXAMPLES = Path(__file__).parents[2] / "manifests/examples"


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_all_columns_of_a_csv_arrive_in_the_record(tmp_path):
    source = written(
        tmp_path,
        "v.csv",
        "url,start_s,end_s,language,title,channel,licence\n"
        "https://example.org/a.mp4,1.5,0:01:02.5,German,Ein Titel,Kanal,CC BY 4.0\n",
    )
    (video,) = read(source)
    assert video == Video.of(
        "https://example.org/a.mp4",
        start_s=1.5,
        end_s=62.5,
        language="de",
        title="Ein Titel",
        channel="Kanal",
        licence="CC BY 4.0",
    )


@pytest.mark.parametrize("name", ["v.jsonl", "v.json", "v.parquet", "v.csv", "v.tsv"])
def test_every_format_of_the_same_rows_gives_the_same_videos(tmp_path, name):
    rows = [
        {"path": "a.mp4", "start_s": 1.0, "end_s": 2.0, "language": "pl"},
        {"path": "sub/b.mp4", "start_s": None, "end_s": None, "language": None},
    ]
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith("json"):
        path.write_text(json.dumps(rows))
    else:
        mark = "\t" if name.endswith("tsv") else ","
        lines = [mark.join(rows[0]), *(mark.join("" if v is None else str(v) for v in row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    assert read(str(path)) == (
        Video.of(str(tmp_path / "a.mp4"), start_s=1.0, end_s=2.0, language="pl"),
        Video.of(str(tmp_path / "sub/b.mp4")),
    )


def test_a_folder_gives_its_videos_and_nothing_else(tmp_path):
    for name in ("b.MP4", "sub/a.webm", "notes.txt", ".hidden.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert [video.url for video in read(str(tmp_path))] == [str(tmp_path / "b.MP4"), str(tmp_path / "sub/a.webm")]


def test_a_folder_is_searched_for_old_endings_too_and_says_what_it_passed_over(tmp_path, caplog):
    for name in ("a.vob", "b.MPEG4", "c.rm", "c.srt", "d.SRT", "README", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(video.url).name for video in read(str(tmp_path))] == ["a.vob", "b.MPEG4", "c.rm"]
    assert caplog.messages == [f"{tmp_path}: 3 other files passed over: .srt, README"]


def test_a_text_list_skips_comments_and_blank_lines(tmp_path):
    source = written(tmp_path, "urls.txt", "# mine\n\nhttps://youtu.be/abcdefghijk?t=3\nlocal.mp4\n")
    assert [video.url for video in read(source)] == [
        "https://www.youtube.com/watch?v=abcdefghijk",
        str(tmp_path / "local.mp4"),
    ]


def test_one_file_is_one_video_however_its_path_is_written(tmp_path):
    path = tmp_path / "a b.mp4"
    path.write_bytes(b"x")
    for spelled in (
        "a b.mp4",
        path.as_uri(),
        f"file://localhost{path}",
        f"{tmp_path}/m/../a b.mp4",
        f"{tmp_path}//./a b.mp4",
    ):
        assert read(written(tmp_path, "v.txt", spelled)) == (Video.of(str(path)),), spelled
    assert read(path.as_uri()) == (Video.of(str(path)),)


def test_a_link_to_a_file_stays_the_path_that_the_list_states(tmp_path):
    (tmp_path / "here").symlink_to(tmp_path)
    assert [video.url for video in read(written(tmp_path, "v.txt", f"{tmp_path}/here/a.mp4"))] == [
        f"{tmp_path}/here/a.mp4"
    ]


def test_a_path_may_begin_at_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, "v.txt", "~/a.mp4\n")
    assert [video.url for video in read("~/v.txt")] == [str(tmp_path / "a.mp4")]


def test_colons_in_a_name_are_letters(tmp_path):
    source = written(tmp_path, "a::b.txt", "c::d.mp4\n")
    (tmp_path / "c::d.mp4").write_bytes(b"x")
    for place in (source, str(tmp_path / "c::d.mp4"), str(tmp_path)):
        assert [video.url for video in read(place)] == [str(tmp_path / "c::d.mp4")]


def test_an_address_of_a_known_site_needs_no_scheme_and_a_folder_named_as_a_host_is_a_folder(tmp_path):
    (tmp_path / "www.talks.org").mkdir()
    source = written(tmp_path, "v.txt", "www.youtube.com/watch?v=abcdefghijk\nwww.e.org/a.mp4\nwww.talks.org/a.mp4\n")
    assert [video.url for video in read(source)] == [
        "https://www.youtube.com/watch?v=abcdefghijk",
        "https://www.e.org/a.mp4",
        str(tmp_path / "www.talks.org/a.mp4"),
    ]
    assert read("youtu.be/abcdefghijk") == (Video.of("https://www.youtube.com/watch?v=abcdefghijk"),)


def test_one_url_or_one_file_is_a_list_of_one(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"x")
    assert [video.url for video in read(str(tmp_path / "a.mkv"), language="th")] == [str(tmp_path / "a.mkv")]
    (video,) = read("https://www.youtube.com/watch?v=abcdefghijk&list=PL1", language="th")
    assert (video.url, video.language) == ("https://www.youtube.com/watch?v=abcdefghijk", "th")


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0c", "\x1e"])
def test_only_a_line_feed_ends_a_line(tmp_path, end):
    path = tmp_path / "v.jsonl"
    videos = (Video.of("/a.mp4", title=f"a{end}b"), Video.of("/b.mp4"))
    path.write_bytes(to_json_lines(videos).replace(b"\n", b"\r\n"))
    assert read(str(path)) == videos
    (video,) = read(written(tmp_path, "v.txt", f"/a{end}b.mp4\n"))
    assert video.url == f"/a{end}b.mp4"


@pytest.mark.parametrize(
    "text",
    [
        "url;language\na.mp4;en\n",
        "sep=,\nurl,language\na.mp4,en\n",
        "sep=|\r\nurl|language\r\na.mp4|en\r\n",
        "\n,,\nurl,language\na.mp4,en\n",
        "url,language\ra.mp4,en\r",
        '"url"\t"language"\n"a.mp4"\t"en"\n',
        "url,language\na.mp4,en\n,\n , \n",
    ],
)
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path, text):
    path = tmp_path / "v.csv"
    path.write_bytes(text.encode())
    assert read(str(path)) == (Video.of(str(tmp_path / "a.mp4"), language="en"),)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_where_commas_part_no_fields_they_begin_the_decimals_of_times(tmp_path, mark):
    rows = "url,start_s,End (s),title\na.mp4,12|5,0:01:02|25,so| so\nb.mp4,3,,\n".replace(",", mark).replace("|", ",")
    first, second = read(written(tmp_path, "v.csv", rows))
    assert (first.start_s, first.end_s, first.title) == (12.5, 62.25, "so, so")
    assert (second.start_s, second.end_s) == (3.0, None)


def test_a_length_beside_a_start_is_said_to_be_that_of_the_whole_video(tmp_path, caplog):
    source = written(tmp_path, "v.csv", "url,start_s,duration_s,end_s\na.mp4,9,600,\n")
    assert [(video.start_s, video.end_s) for video in read(source)] == [(9.0, None)]
    read(written(tmp_path, "v.csv", "url,start_s,duration_s,end_s\na.mp4,9,5,14\nb.mp4,,600,\n"))
    said = "without end_s a part goes on to the end: duration_s is that of the whole video"
    assert caplog.messages == [f"{source}: {said}"], "of the first list alone"


def test_a_list_in_another_encoding_is_told_how_to_save_it(tmp_path):
    (tmp_path / "v.csv").write_bytes("url,title\na.mp4,Gespräch\n".encode("cp1252"))
    with pytest.raises(ManifestError, match=r"\(byte 21\); save it as UTF-8, which Excel calls CSV UTF-8$"):
        read(str(tmp_path / "v.csv"))


@pytest.mark.parametrize("heading", ["Start (s),End (s)", "START,END", "start [sec],end_(sec)", "start_ms,End (ms)"])
def test_a_part_is_found_under_headings_that_name_its_unit(tmp_path, heading, caplog):
    times = "1500,2000" if "ms" in heading else "1.5,2"
    (video,) = read(written(tmp_path, "v.csv", f"url,{heading}\na.mp4,{times}\n"))
    assert (video.start_s, video.end_s) == (1.5, 2.0)
    assert video.id == Video.of(video.url, start_s=1.5, end_s=2.0).id
    assert not caplog.messages


def test_columns_that_are_not_used_are_told_in_one_line(tmp_path, caplog):
    source = written(tmp_path, "v.csv", ",file,url,start_min,notes\n0,a.mp4,/b.mp4,3,\n1,,/c.mp4,4,\n")
    assert [video.url for video in read(source)] == ["/b.mp4", "/c.mp4"]
    assert caplog.messages == [f"{source}: columns not used: file, start_min"]
    many = written(tmp_path, "v.jsonl", json.dumps({"url": "a.mp4", "id": 1, **{f"c{i}": i for i in range(20)}}))
    read(many)
    assert caplog.messages[-1].endswith("columns not used: id, c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 and 9 more")


def test_a_language_that_is_not_known_is_not_stated_and_case_does_not_part_tags(tmp_path):
    rows = ["unknown", "AUTO", "Others", "EN-us", "en_US", "zh-hANS-cn"]
    source = written(tmp_path, "v.csv", "url,language\n" + "".join(f"{i}.mp4,{tag}\n" for i, tag in enumerate(rows)))
    found = [video.language for video in read(source, language="pl")]
    assert found == ["pl", "pl", "pl", "en-US", "en-US", "zh-Hans-CN"]


def test_no_number_in_a_parquet_column_is_an_empty_field(tmp_path):
    nan = float("nan")
    rows = {"url": ["a.mp4", "b.mp4"], "start_s": [nan, 1.5], "end_s": [nan, nan]}
    parquet.write_table(pa.table(rows), tmp_path / "v.parquet")
    assert [(video.start_s, video.end_s) for video in read(str(tmp_path / "v.parquet"))] == [(None, None), (1.5, None)]


def test_a_parquet_column_of_bytes_or_a_damaged_page_is_said_in_one_line(tmp_path):
    path = tmp_path / "v.parquet"
    parquet.write_table(pa.table({"url": [b"a.mp4"]}), path)
    with pytest.raises(ManifestError, match="row 1: field url: not text"):
        read(str(path))
    parquet.write_table(pa.table({"url": ["a.mp4", "b.mp4"] * 50}), path, compression="none", use_dictionary=False)
    whole = path.read_bytes()
    for damaged in (b"x" * 100 + whole[100:], whole.replace(b"a.mp4", b"\xff.mp4")):
        path.write_bytes(damaged)
        with pytest.raises(ManifestError, match=f"^{path}: not Parquet: [^\n]+$"):
            read(str(path))


def test_rows_with_the_same_source_and_part_collapse(tmp_path):
    same = ["https://youtu.be/abcdefghijk", "https://www.youtube.com/watch?v=abcdefghijk&t=5s", "abcdefghijk"]
    source = written(tmp_path, "v.csv", "url,start_s\n" + "".join(f"{url},2\n" for url in same) + "abcdefghijk,3\n")
    assert [video.start_s for video in read(source)] == [2.0, 3.0]


def test_avspeech_has_no_header(tmp_path):
    source = written(tmp_path, "avspeech_train.csv", "2XeFJTkCFVM,107.24,113.64,0.4,0.3\n-_bNuUMR5I8,4,9,0.1,0.2\n")
    first, second = read(source)
    assert first == Video.of("https://www.youtube.com/watch?v=2XeFJTkCFVM", start_s=107.24, end_s=113.64)
    assert second.url.endswith("v=-_bNuUMR5I8")


def test_nested_published_layouts_are_understood(tmp_path):
    talkvid = [
        {
            "id": "videovideoTr6MMsoWAog-scene1-scene1",
            "start-time": 0.1,
            "end-time": 5.14,
            "info": {"Video Link": "https://www.youtube.com/watch?v=Tr6MMsoWAog", "Language": "English"},
        }
    ]
    celebv = {
        "meta_info": {"appearance_mapping": []},
        "clips": {"M2Ohb0FAaJU_1": {"ytb_id": "M2Ohb0FAaJU", "duration": {"start_sec": 81.62, "end_sec": 86.17}}},
    }
    multitalk = {"0": {"youtube_id": "M2Ohb0FAaJU", "duration": {"start_sec": 1, "end_sec": 4}, "language": "croatian"}}
    read_back = [
        read(written(tmp_path, f"{n}.json", json.dumps(rows)))[0] for n, rows in enumerate((talkvid, celebv, multitalk))
    ]
    assert [(v.url[-11:], v.start_s, v.end_s, v.language) for v in read_back] == [
        ("Tr6MMsoWAog", 0.1, 5.14, "en"),
        ("M2Ohb0FAaJU", 81.62, 86.17, None),
        ("M2Ohb0FAaJU", 1.0, 4.0, "hr"),
    ]


def test_a_list_may_lie_in_a_bucket_and_its_paths_are_relative_to_it():
    with fsspec.open("memory://lists/v.csv", "w") as f:
        f.write("path\nclips/a.mp4\n")
    assert [video.url for video in read("memory://lists/v.csv")] == ["memory://lists/clips/a.mp4"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("v.csv", "url,start_s\nhttps://e.org/a.mp4,soon\n", "line 2: field start_s: 'soon'"),
        ("v.csv", "url,start_s,end_s\nhttps://e.org/a.mp4,5,4\n", "line 2: field end_s: 4 is not after"),
        ("v.csv", "url,language\n\nhttps://e.org/a.mp4,Klingon!\n", "line 3: field language: 'Klingon!'"),
        ("v.csv", "address,language\nx,de\n", "line 1: no column url, path or youtube_id among address, language"),
        ("v.csv", "url,language\n,de\n", "line 2: field url: missing"),
        ("v.csv", "url\na.mp4,de\n", "line 2: more fields than columns; quote fields that hold ','"),
        ("v.csv", "2XeFJTkCFVM,1,2\n", "among 2XeFJTkCFVM, 1, 2; write a heading such as youtube_id,start_s,end_s"),
        ("v.csv", 'url,start_s\na.mp4,"1,234"\n', "line 2: field start_s: '1,234' is not a time"),
        ("v.csv", "url,start_s,duration_s\na.mp4,9,5\n", "field duration_s: 5, the whole video's, is not after"),
        ("v.txt", "Radio11 https://e.org/a\n", "field url: 'Radio11 https://e.org/a': one address a line; columns"),
        ("v.csv", "youtube_id,start_s\nshort,2\n", "line 2: field youtube_id: 'short'"),
        ("v.csv", "url\nfoo://a.mp4\n", "line 2: field url: foo:// cannot be read"),
        ("v.csv", 'url,title\na.mp4,"never closed\nb.mp4,B\nc.mp4,C\n', "line 2: not CSV: unexpected end of data"),
        ("v.csv", f'url\n"{"x" * 140_000}"\n', "line 2: not CSV: field larger than field limit"),
        ("v.csv", "", "no column"),
        ("v.csv", "url\n", "no videos in it"),
        ("v.jsonl", '{"url": "a.mp4"}\n{"url": \n', "line 2: not JSON"),
        ("v.jsonl", "3\n", "line 1: neither an object nor a URL"),
        ("v.json", '[{"url": "a.mp4"},\n 5]', "entry 2: neither an object nor a URL"),
        ("v.json", "{", "line 1: not JSON"),
        ("v.json", "7", "neither an array nor an object"),
        ("v.json", '{"clips": 5}', "neither an array nor an object"),
        ("v.json", "[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("v.jsonl", "[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("v.jsonl", '{"url": ["a.mp4", "b.mp4"]}', "line 1: field url: not text"),
        ("v.jsonl", '{"url": true}', "line 1: field url: not text"),
        ("v.csv", "url\na.mp4\rb.mp4\nc.mp4\n", "line 2: not CSV: a carriage return outside quotes"),
        ("v.csv", "sep=;\n\nurl;start_s\na.mp4;soon\n", "line 4: field start_s: 'soon'"),
        ("v.csv", "url,start_ms\na.mp4,0:01\n", "line 2: field start_ms: '0:01' is not a time in milliseconds"),
        ("v.csv", "url,language\na.mp4,Deutsch\n", "of a language we know: say de, pt-BR or German"),
        ("v.csv", "url\nhttp://[/a.mp4\n", "line 2: field url: 'http://[/a.mp4' cannot be an address: Invalid IPv6"),
        ("v.txt", "http://a:99999/b\n", "line 1: field url: 'http://a:99999/b' cannot be an address: Port out of"),
        ("v.jsonl", f'{{"url": "a.mp4", "start_s": {"9" * 5000}}}', "line 1: field start_s: '999"),
        ("v.json", f'[{{"url": "a.mp4", "end_s": {"9" * 5000}}}]', "entry 1: field end_s: '999"),
        (
            "v.txt",
            "example.com/a.mp4\n",
            "line 1: field url: no file 'example.com/a.mp4'; if it is on the web, put https",
        ),
        ("v.parquet", "PAR?", "not Parquet"),
    ],
)
def test_a_mistake_is_named_with_file_place_and_field(tmp_path, name, text, said):
    source = written(tmp_path, name, text)
    with pytest.raises(ManifestError) as caught:
        read(source)
    message = str(caught.value)
    assert message.startswith(source)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("title", ['"Hello" he said', '"never closed', 'a "word" within'])
def test_where_tabs_part_the_fields_a_stray_quote_is_a_letter(title, tmp_path):
    (tmp_path / "v.tsv").write_text(f"url\ttitle\na.mp4\t{title}\nb.mp4\tnext\n")
    assert [video.title for video in read(str(tmp_path / "v.tsv"))] == [title, "next"]


def test_a_list_with_tabs_whose_addresses_are_quoted_is_held_to_its_quotes(tmp_path):
    (tmp_path / "v.tsv").write_text('url\ttitle\n"a.mp4"\t"A"\n"b.mp4"\t"B "x" y"\n')
    with pytest.raises(ManifestError, match="line 3: not CSV"):
        read(str(tmp_path / "v.tsv"))


def test_quotes_within_a_field_and_lines_within_quotes_are_read(tmp_path):
    source = written(tmp_path, "v.csv", 'url,title\na.mp4,so "called"\nb.mp4,"two\nlines"\n')
    assert [video.title for video in read(source)] == ['so "called"', "two\nlines"]


@pytest.mark.parametrize("source", ["gs://bucket/v.csv", "gs://bucket/folder"])
def test_a_place_whose_package_is_not_there_is_said_in_one_line(source):
    with pytest.raises(ManifestError, match="gcsfs"):
        read(source)


def test_a_list_that_was_written_is_read_back_equal(tmp_path, caplog):
    videos = (
        Video.of("https://www.youtube.com/watch?v=abcdefghijk", start_s=1 / 3, end_s=9.0, language="zh", title="中文"),
        Video.of("https://example.org/b.mp4", channel="C", licence="CC0", duration_s=77.5),
        Video.of("/videos/c.mp4"),
    )
    path = tmp_path / "v.jsonl"
    path.write_bytes(to_json_lines(videos))
    assert read(str(path)) == videos and not caplog.messages


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    for source in (tmp_path / "no.csv", tmp_path / "no.mp4", tmp_path / "nothing"):
        with pytest.raises(ManifestError, match="no such file"):
            read(str(source))


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_the_examples_are_read(path):
    assert len(read(str(path))) >= 2


@pytest.mark.parametrize(
    "url",
    [
        "https://youtu.be/abcdefghijk?si=share",
        "http://m.youtube.com/watch?v=abcdefghijk",
        "https://www.youtube.com/shorts/abcdefghijk",
        "https://www.youtube.com/embed/abcdefghijk?start=4",
        "https://www.youtube.com/watch?app=desktop&v=abcdefghijk#x",
    ],
)
def test_all_addresses_of_a_youtube_video_are_one(url):
    assert canonical(url) == "https://www.youtube.com/watch?v=abcdefghijk"


def test_other_addresses_keep_what_matters():
    assert canonical("HTTPS://Example.org/A?b=C#d") == "https://example.org/A?b=C"
    assert canonical("https://www.youtube.com/@name/videos") == "https://www.youtube.com/@name/videos"
    assert canonical("s3://bucket/Key#1") == "s3://bucket/Key#1"
