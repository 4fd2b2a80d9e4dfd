"""A channel is known by its names and addresses, wherever they are written, and nobody by no name."""

import unicodedata

import pytest

from manifests.codec import to_plain
from manifests.records import Video
from manifests.store import Store
from pipeline.cli import main
from pipeline.forget import forget_all
from pipeline.job import Job, add_videos, read_videos, write_job
from pipeline.ledger import Ledger, Outcome
from pipeline.recipes import TalkingFaces
from pipeline.stage import keys
from stages.catalogue import write_catalogue
from stages.judge import judge
from stages.policies import PAPER
from stages.split import Member, place
from tests.stages.measured import measured, source

RECIPE = TalkingFaces()
ADDRESS = "https://tube.example/@A"


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


def fetched(store, video, *, channel="", **page):
    """As if it had been fetched from a page that says this."""
    add_videos(store, [Video(id=video, url=f"https://h.invalid/{video}", channel=channel)])
    body = to_plain(source(**page))
    Ledger(store).write(keys(RECIPE.stages(), Video)["fetch"], video, Outcome(status="ok", body=body))


def forget(store, what, *, dry=False):
    return forget_all(store, RECIPE, read_videos(store), [what], dry=dry)


@pytest.mark.parametrize("blank", ["", " ", "\t", "\u00a0", "\u2003\n"])
def test_no_name_is_that_of_no_channel(store, blank, capsys):
    fetched(store, "v3")
    write_job(store, Job(recipe="own"))
    assert main(["forget", f"channel:{blank}", "--store", store.url]) == 2
    assert "expected video:ID, channel:NAME or person:ID" in " ".join(capsys.readouterr().err.split())
    assert [video.id for video in read_videos(store)] == ["v3"]


def test_videos_that_a_renamed_channel_put_at_one_address_are_of_one_channel_and_of_its_names_no_stranger(store):
    fetched(store, "v3", uploader="Anna", uploader_url=ADDRESS)
    fetched(store, "v5", uploader="Anna Official", uploader_url=ADDRESS.lower())
    fetched(store, "v7", uploader="Anna Official", uploader_url="https://other.example/@A")
    fetched(store, "v9", uploader="Bo")
    assert forget(store, "channel:Anna").videos == ["v3", "v5"]
    rows = [Video.of(f"{n}.mp4", channel=of) for n, of in enumerate(("Anna", "Anna Official", ADDRESS, "Bo"))]
    assert [row.channel for row in add_videos(store, rows) if row in rows] == ["Bo"]


def test_what_the_page_calls_the_channel_of_a_row_counts_too(store):
    fetched(store, "v3", channel="Anna", uploader="Anna Official", uploader_url=ADDRESS)
    fetched(store, "v5", uploader="Anna Official", uploader_url=ADDRESS)
    assert forget(store, "channel:Anna").videos == ["v3", "v5"]
    new = Video.of("new.mp4", channel="Anna Official")
    assert new not in add_videos(store, [new])


def test_the_tables_know_the_channel_of_a_video_whose_outcomes_were_taken_back(store):
    fetched(store, "v3", uploader="Anna")
    found = [measured("v3"), measured("v5", channel="Anna")]
    write_catalogue(store, found, judge(found, PAPER), PAPER)
    assert forget(store, "channel:Anna").videos == ["v3", "v5"]


def test_a_letter_of_one_sign_or_two_is_one_letter(store):
    one, two = (unicodedata.normalize(form, "Jürgen") for form in ("NFC", "NFD"))
    fetched(store, "v3", channel=one)
    fetched(store, "v5", uploader=two)
    assert forget(store, f"channel:{one}", dry=True).videos == forget(store, f"channel:{two}").videos == ["v3", "v5"]
    rows = [Video.of(f"{name!a}.mp4", channel=name) for name in (one, two)]
    assert not set(rows) & set(add_videos(store, rows))
    members = [Member(key=f"{n}-0000", video=n, channel=n, track=0, face=(), frames=10) for n in (one, two)]
    placed = place(members, [], same_person_cosine=0.4, val_share=0.5, test_share=0.0)
    assert len({placement.group for placement in placed.values()}) == 1


def test_a_video_is_also_meant_by_any_spelling_of_its_address_with_all_its_parts(store):
    address = "https://www.youtube.com/watch?v=abcdefghijk"
    parts = [Video.of(address, start_s=0.0, end_s=9.0), Video.of(address, start_s=9.0), Video.of("/talks/a.mp4")]
    add_videos(store, [*parts, Video.of("https://www.youtube.com/watch?v=ABCDEFGHIJK")])
    assert forget(store, "video:https://youtu.be/abcdefghijk?t=3", dry=True).videos == sorted(p.id for p in parts[:2])
    assert forget(store, "video:/talks/../talks/a.mp4").videos == [parts[2].id]
    with pytest.raises(ValueError, match="no video of that name"):
        forget(store, "video:https://youtu.be/00000000000")


def test_one_letter_means_no_video_since_nothing_brings_it_back(store):
    video = Video.of("a.mp4")
    add_videos(store, [video])
    for letters in (1, 7):
        with pytest.raises(ValueError, match="give 8 letters of the id or more"):
            forget(store, f"video:{video.id[:letters]}")
    assert read_videos(store) == (video,)
    assert forget(store, f"video:{video.id[:8]}").videos == [video.id]
