"""Lists of videos are read in every layout that people have, and a mistake in them is named to the field."""

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from manifests.records import Video
from manifests.table import ManifestError, read, to_json_lines
from manifests.urls import canonical

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


def test_a_text_list_skips_comments_and_blank_lines(tmp_path):
    source = written(tmp_path, "urls.txt", "# mine\n\nhttps://youtu.be/abcdefghijk?t=3\nlocal.mp4\n")
    assert [video.url for video in read(source)] == [
        "https://www.youtube.com/watch?v=abcdefghijk",
        str(tmp_path / "local.mp4"),
    ]


def test_one_url_or_one_file_is_a_list_of_one(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"x")
    assert [video.url for video in read(str(tmp_path / "a.mkv"), language="th")] == [str(tmp_path / "a.mkv")]
    (video,) = read("https://www.youtube.com/watch?v=abcdefghijk&list=PL1", language="th")
    assert (video.url, video.language) == ("https://www.youtube.com/watch?v=abcdefghijk", "th")


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
        ("v.csv", "url\na.mp4,de\n", "line 2: more fields than columns"),
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


def test_a_list_that_was_written_is_read_back_equal(tmp_path):
    videos = (
        Video.of("https://www.youtube.com/watch?v=abcdefghijk", start_s=1 / 3, end_s=9.0, language="zh", title="中文"),
        Video.of("https://example.org/b.mp4", channel="C", licence="CC0", duration_s=77.5),
        Video.of("/videos/c.mp4"),
    )
    path = tmp_path / "v.jsonl"
    path.write_bytes(to_json_lines(videos))
    assert read(str(path)) == videos


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


def test_a_password_in_an_address_keeps_its_letters():
    assert canonical("https://Anna:S3Cret@Example.ORG/A.mp4") == "https://Anna:S3Cret@example.org/A.mp4"
