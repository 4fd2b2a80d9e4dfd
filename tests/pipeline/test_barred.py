"""What was forgotten stays out however its address is spelled, and what older versions left holds."""

import hashlib
import re
import unicodedata

import pytest

from manifests.codec import to_json
from manifests.records import Video
from manifests.store import Store
from manifests.table import read
from pipeline.barred import Barred, bar
from pipeline.cli import main
from tests.pipeline.test_meant import fetched, forget

MP4, VIMEO, WATCH = "https://films.example/a.mp4", "https://vimeo.com/76979871", "https://youtu.be/abcdefghijk"
SPELLINGS = {
    MP4: """http://films.example/a.mp4 https://films.example:443/a.mp4 https://films.example/a.mp4?utm_source=x
        https://FILMS.example/a.mp4 https://films.example/a.mp4/ https://www.films.example/a.mp4
        https://films.example./a.mp4 https://me:pw@films.example/a.mp4 https://films.example/a.mp4#t=3
        https://films.example/a.mp4?fbclid=1&gclid=2""",
    VIMEO: """https://www.vimeo.com/76979871 https://vimeo.com/76979871/ https://vimeo.com/76979871?share=copy
        https://player.vimeo.com/video/76979871""",
    WATCH: """http://youtube.com/watch?v=abcdefghijk&list=x https://youtu.be/abcdefghijk?si=1
        https://www.youtube.com/watch/abcdefghijk https://www.youtube.com/e/abcdefghijk
        https://gaming.youtube.com/watch?v=abcdefghijk https://youtube.com./watch?v=abcdefghijk
        https://www.youtube.com/watch?v=abcdefghijk&feature=share""",
}
OTHERS = {
    MP4: """https://films.example/b.mp4 https://films.example:8080/a.mp4 https://films.example/a.mp4?id=2
        https://old.films.example/a.mp4 https://films.example/A.mp4""",
    VIMEO: "https://vimeo.com/76979872 https://player.vimeo.com/76979871",
    WATCH: "https://youtu.be/abcdefghijK https://films.example/watch?v=abcdefghijk",
}


def row_of(tmp_path, address):
    (tmp_path / "l.txt").write_text(address)
    (row,) = read(str(tmp_path / "l.txt"))
    return row


@pytest.mark.parametrize("gone", SPELLINGS)
def test_an_address_is_known_however_it_is_spelled_and_no_other_is_taken_for_it(tmp_path, gone):
    store = Store(str(tmp_path / "out"))
    bar(store, [row_of(tmp_path, gone)], ())
    barred = Barred.of(store)
    spelled = [gone, *SPELLINGS[gone].split()]
    assert [one for one in spelled if not barred.holds(row_of(tmp_path, one))] == []
    assert [one for one in OTHERS[gone].split() if barred.holds(row_of(tmp_path, one))] == []


def test_a_file_is_known_behind_a_linked_folder_and_by_every_kind_of_list(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.mp4").write_bytes(b"x")
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    ways = ["a.mp4", f"{tmp_path}/home/a.mp4", f"{tmp_path}/disk/a.mp4"]
    rows = [*read(str(tmp_path / "home")), *(row_of(tmp_path / "home", way) for way in ways)]
    assert len({row.id for row in rows}) > 1
    for number, gone in enumerate(rows):
        bar(store := Store(str(tmp_path / f"out{number}")), [gone], ())
        assert all(map(Barred.of(store).holds, rows))


def test_what_older_versions_left_by_addresses_and_names_as_they_were_written_holds(tmp_path):
    def digest(text):
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    store, two = Store(str(tmp_path)), unicodedata.normalize("NFD", "jürgen")
    old = "https://www.films.example/a.mp4?utm_source=x"
    store.put("barred/old.json", to_json({"parts": [(digest(old), 0.0, None)], "channels": [digest(two)]}))
    barred = Barred.of(store)
    assert barred.holds(Video.of(old)) and not barred.holds(Video.of(MP4))
    assert all(barred.holds(Video.of("b.mp4", channel=unicodedata.normalize(f, "Jürgen"))) for f in ("NFC", "NFD"))


def test_the_page_that_a_forgotten_video_came_from_is_kept_out_too_and_only_that_part_of_it(tmp_path):
    store = Store(str(tmp_path / "out"))
    fetched(store, "v3", page_url="https://talks.example/of-anna")
    fetched(store, "v5", page_url="https://talks.example/of-bo")
    forget(store, "video:v3")
    barred = Barred.of(store)
    assert barred.holds(Video.of("http://talks.example/of-anna/"))
    assert not barred.holds(Video.of("https://talks.example/of-bo"))


def test_parts_of_one_address_without_an_end_and_with_one_are_kept_out_together(tmp_path):
    bar(store := Store(str(tmp_path)), [Video.of(MP4, start_s=9.0), Video.of(MP4, start_s=9.0, end_s=12.0)], ())
    assert Barred.of(store).holds(Video.of(MP4, start_s=20.0)) and not Barred.of(store).holds(Video.of(MP4, end_s=9.0))


def test_a_row_that_is_kept_out_is_never_due_and_starts_nothing(tmp_path, monkeypatch, capsys, caplog):
    (tmp_path / "l.txt").write_text(f"{MP4}?utm_source=x\n")
    store = Store(str(tmp_path / "out"))
    bar(store, [Video.of(MP4)], ())
    monkeypatch.setattr("pipeline.run.run_on_ray", lambda *_: pytest.fail("half a minute for nothing"))
    command = ["run", "sample", "--manifest", str(tmp_path / "l.txt"), "--store", store.url, "--until", "fetch"]
    assert main([*command, "--dry"]) == 0 and re.search(r"fetch +0 ", capsys.readouterr().out)
    assert main(command) == 0 and "nothing to do" in capsys.readouterr().out
    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == ["1", "1"], "said once by each"
