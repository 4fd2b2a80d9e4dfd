"""Who is to be forgotten is found whatever was upgraded, renamed or broken off meanwhile, and leaves nothing behind."""

import dataclasses

import pytest

from manifests.codec import to_plain
from manifests.languages import Language
from manifests.records import Identities, Video
from manifests.store import Store
from pipeline import sources
from pipeline.cli import main
from pipeline.finish import finish, judged, snapshot
from pipeline.forget import forget_all
from pipeline.job import Job, add_videos, read_videos, write_job
from pipeline.ledger import Ledger, Outcome
from pipeline.recipes import TalkingFaces, build
from pipeline.stage import keys
from stages.identity import Recognise
from stages.policies import PAPER
from stages.shard_index import CARD, SUMS, read_index
from stages.verify import verify
from stages.weights import WeightsMissingError
from tests.stages.measured import identity, measured, put, random_hash, remember, source, stored_clip

RECIPE = TalkingFaces(policy=dataclasses.replace(PAPER, min_duration_s=None), shard_bytes=1_000_000)
UPGRADED = dataclasses.replace(RECIPE, identity=Recognise(faces=4))


def measure(store, video, person, *, like="", channel="", uploader="", recipe=RECIPE):
    """As if a video with one clip of that person had passed every stage; `like`: what it is a copy of."""
    names = keys(recipe.stages(), Video)
    clip = stored_clip(store, video, seed=sum(map(ord, video)))
    shown = identity(clip.key, person=person, **prints(like or video))
    one = measured(video, clips=(clip,), channel=channel, identities=(shown,))
    file = put(store, f"blobs/{names['fetch']}/{video[:2]}/{video}/source.mp4", b"source")
    one = dataclasses.replace(one, source=source(file, uploader=uploader))
    add_videos(store, [one.video])
    remember(store, names, one)


def prints(of):
    return {"picture_hash": random_hash("picture" + of, 128), "sound_hash": random_hash("sound" + of, 256)}


def identified(store, recipe, video, person, of):
    """As if the identity stage alone, under a recipe, had measured one clip of it."""
    body = to_plain(Identities(items=(identity(f"{video}-0000", person=person, **prints(of)),), model="m"))
    Ledger(store).write(keys(recipe.stages(), Video)["identity"], video, Outcome(status="ok", body=body))


def written(store, recipe=RECIPE):
    return finish(recipe, Job(recipe="own"), snapshot(recipe, read_videos(store), store), store)


@pytest.fixture
def store(tmp_path):
    """v4 is a copy of v3, v5 and v6 show one person, v7 is of a channel; all of it written."""
    store = Store(str(tmp_path / "out"))
    for n in (3, 4, 5, 6, 7):
        measure(store, f"v{n}", 5 if n == 6 else n, like="v3" if n == 4 else "", uploader="Anna" if n == 7 else "")
    written(store)
    return store


def forget(store, *what, recipe=RECIPE, dry=False):
    return forget_all(store, recipe, read_videos(store), what, dry=dry)


def named(store, video):
    return next(f"person:{row.person}" for row in read_index(store).rows if row.video == video)


def files(store, *of):
    """Every file below the root that names one of these videos, tombstones aside."""
    found = [str(path.relative_to(store.local)) for path in store.local.rglob("*") if path.is_file()]
    return [path for path in found if any(id in path for id in of) and not path.startswith("tombstones")]


@pytest.mark.parametrize("what", ["video:v3", "video:v4"])
def test_a_copy_goes_too_after_an_upgrade_for_which_all_waits_to_be_measured_anew(store, what):
    assert forget(store, what, recipe=UPGRADED).videos == ["v3", "v4"]


def test_a_copy_that_waits_is_found_by_what_was_measured_of_it_before(store):
    """One that was found since then was measured by the new stage alone, its copy by the old one alone."""
    measure(store, "v8", 8, like="v7", recipe=UPGRADED)
    gone = forget(store, "video:v8", recipe=UPGRADED)
    assert gone.videos == ["v7", "v8"] and gone.copies == ["v7"]


def test_a_person_is_known_by_the_name_in_the_shards_after_an_upgrade(store):
    assert forget(store, named(store, "v5"), recipe=UPGRADED).videos == ["v5", "v6"]


def test_a_name_means_whom_the_results_mean_by_it_though_one_more_video_was_measured_since(store):
    """Of "a1" the first clip comes first, and its key would name the person now."""
    name = named(store, "v6")
    measure(store, "a1", 5)
    assert name.partition(":")[2] not in {verdict.person for verdict in judged(RECIPE, read_videos(store), store)[1]}
    assert forget(store, name).videos == ["a1", "v5", "v6"]


def test_a_name_that_somebody_else_bears_by_now_still_means_whom_the_results_mean(store):
    """v5 was measured anew and shows somebody else: by its key, which comes first, they are called as v6 was."""
    name = named(store, "v6")
    identified(store, RECIPE, "v5", 7, of="elsewhere")
    assert {v.video for v in judged(RECIPE, read_videos(store), store)[1] if f"person:{v.person}" == name} == {
        "v5",
        "v7",
    }
    assert forget(store, name).videos == ["v5", "v6"]


def test_a_person_of_no_results_is_known_as_judged_today(store):
    measure(store, "v8", 8)
    measure(store, "v9", 8)
    (name,) = {v.person for v in judged(RECIPE, read_videos(store), store)[1] if v.video in ("v8", "v9")}
    assert forget(store, f"person:{name}").videos == ["v8", "v9"]
    with pytest.raises(ValueError, match="no person of that name"):
        forget(store, "person:p-x")


def test_faces_of_other_models_are_not_compared(store):
    """What one model says of somebody, another may say of anybody."""
    identified(store, UPGRADED, "v7", 5, of="v7")
    assert forget(store, named(store, "v5")).videos == ["v5", "v6"]


def unweighted(store, tmp_path):
    """The recipe of a job whose weights lie no more where it has them."""
    return dataclasses.replace(RECIPE, identity=Recognise(pack=str(tmp_path / "gone")))


@pytest.mark.parametrize(("what", "videos"), [("video:v3", ["v3", "v4"]), ("channel:anna", ["v7"])])
def test_a_video_and_a_channel_are_forgotten_without_the_weights_of_the_job(store, tmp_path, what, videos):
    recipe = unweighted(store, tmp_path)
    with pytest.raises(WeightsMissingError):
        keys(recipe.stages(), Video)
    assert forget(store, what, recipe=recipe).videos == videos
    assert not files(store, *videos) and verify(store).ok and store.exists(SUMS) and not store.exists(CARD)


def test_a_command_that_has_removed_all_without_the_weights_of_the_job_has_not_failed(store, tmp_path, capsys):
    write_job(store, Job(recipe="own", overrides=(f"identity.pack={tmp_path / 'gone'}",)))
    assert main(["forget", "video:v7", "--store", store.url]) == 0
    assert not files(store, "v7") and "the report is left to the next run" in capsys.readouterr().out


def test_a_person_of_the_results_is_forgotten_without_the_weights_of_the_job_and_of_another_they_are_asked_for(
    store, tmp_path
):
    recipe = unweighted(store, tmp_path)
    with pytest.raises(WeightsMissingError, match="gone"):
        forget(store, "person:p-x", recipe=recipe)
    assert forget(store, named(store, "v6"), recipe=recipe).videos == ["v5", "v6"]


def test_a_channel_is_known_by_what_a_page_said_when_it_was_fetched_by_an_older_version(store):
    older = dataclasses.replace(RECIPE, fetch=dataclasses.replace(RECIPE.fetch, licence="cc"))
    measure(store, "v8", 8, uploader="Anna", recipe=older)
    assert forget(store, "channel:Anna").videos == ["v7", "v8"]


def test_what_the_trainer_encoded_of_clips_goes_with_them(store):
    """Also of clips that were in the shards once: what was encoded stays where a clip changes."""
    made = [f"shards/encoded/{run}/{key}.0a1b.latent.npy" for run in "ab" for key in ("v3-0000", "v3-0009", "v5-0000")]
    for path in made:
        store.put(path, b"x")
    dry, done = forget(store, "video:v3", dry=True), forget(store, "video:v3")
    assert store.list("shards/encoded") == [path for path in made if "v5" in path]
    assert dry.objects == done.objects


def test_what_the_trainer_encoded_goes_in_an_object_store_too(bucket):
    store = Store(f"{bucket}/encoded")
    measure(store, "v3", 3)
    for key in ("v3-0000", "v30-0000"):
        store.put(f"shards/encoded/a/{key}.0a1b.face.npy", b"x")
    forget(store, "video:v3")
    assert store.list("shards") == ["shards/encoded/a/v30-0000.0a1b.face.npy"]
    assert not store.list("blobs") and not store.list("ledger")


def test_halves_of_its_blobs_go_whichever_machine_was_writing_them(store):
    half = ".partial-spot-4026531836-77-0"
    folders = {video: store.local / f"blobs/fetch-older/{video[:2]}/{video}" for video in ("v3", "v5")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / half).write_bytes(b"half a source")
    forget(store, "video:v3")
    assert not files(store, "v3", "v4") and (folders["v5"] / half).exists()


def test_a_key_that_names_another_clip_by_now_does_not_lend_its_face(store):
    """The upgrade has cut v5 otherwise: its first clip shows the host, whom v7 shows too."""
    identified(store, UPGRADED, "v5", 7, of="another clip")
    identified(store, UPGRADED, "v7", 7, of="v7")
    assert forget(store, named(store, "v6")).videos == ["v5", "v6"]


FILM = "https://films.example/long.mp4"


@pytest.fixture
def parted(store):
    """A store of which a part of a film was forgotten, and of which another was not."""
    gone, stays = (Video.of(FILM, start_s=start_s, end_s=start_s + 10) for start_s in (20.0, 60.0))
    add_videos(store, [gone, stays])
    assert forget(store, f"video:{gone.id}").videos == [gone.id]
    return store


@pytest.mark.parametrize(
    ("part", "comes_in"),
    [
        ({"start_s": 20.0, "end_s": 30.1}, False),
        ({}, False),
        ({"start_s": 25.0}, False),
        ({"end_s": 20.0}, True),
        ({"start_s": 30.0}, True),
        ({"start_s": 60.0, "end_s": 70.0}, True),
    ],
)
def test_no_other_row_of_what_was_forgotten_comes_in(parted, part, comes_in, caplog):
    row = Video.of(FILM, **part)
    assert (row in add_videos(parted, [row, Video.of("other.mp4")])) is comes_in
    assert ("some of what they are part of was forgotten: 1" in caplog.text) is not comes_in
    assert (row in read_videos(parted)) is comes_in


def test_what_is_in_the_list_already_stays_there(store):
    """What was taken as well, is said in the proof: no later run takes away more."""
    gone, wider = Video.of(FILM, start_s=20.0, end_s=30.0), Video.of(FILM)
    add_videos(store, [gone, wider])
    forget(store, f"video:{gone.id}")
    assert wider in add_videos(store, [wider])


@pytest.mark.parametrize("what", ["channel:anna", "channel:https://tube.example/@a"])
def test_no_new_video_of_a_channel_that_was_forgotten_comes_in(store, what, caplog):
    """By its address too: what a listing says of a new video is a name."""
    (body,) = (outcome.body for outcome in Ledger(store).passed([key_of("fetch")], "v7").values())
    body |= {"uploader_url": "https://tube.example/@A"}
    Ledger(store).write(key_of("fetch"), "v7", Outcome(status="ok", body=body))
    assert forget(store, what).videos == ["v7"]
    rows = [Video.of("new.mp4", channel=" Anna"), Video.of("also.mp4", channel="ANNA"), Video.of("b.mp4", channel="Bo")]
    assert [row.url for row in add_videos(store, rows) if row in rows] == ["b.mp4"]
    assert "was forgotten: 2" in caplog.text


def key_of(stage):
    return keys(RECIPE.stages(), Video)[stage]


def test_a_search_leaves_out_what_it_finds_of_a_channel_that_was_forgotten(store, monkeypatch, caplog):
    forget(store, "channel:Anna")
    found = [Video.of(f"https://h.invalid/{of}", channel=of, duration_s=3600.0) for of in ("Anna", "Bo")]
    language = Language(tag="de", name="de", own_name="de", hours=1.0, licence="cc")
    monkeypatch.setattr(sources, "load", lambda: (language,))
    monkeypatch.setattr(sources, "discover", lambda *_: iter(found))
    recipe = build("wild")
    wild = sources.Wild(None, None, store, recipe.discover, recipe.fetch)
    assert [video.channel for video in wild.next_wave(sources.Hours({}, {}), ())] == ["Bo"]
    assert "were forgotten, left out: 1" in caplog.text


def test_nobody_who_was_forgotten_is_named_in_the_store(parted):
    forget(parted, "channel:Anna")
    every = b"".join(path.read_bytes() for path in parted.local.rglob("*") if path.is_file())
    assert b"Anna" not in every and b"v7.mp4" not in every and len(parted.list("barred")) == 2


def test_a_dry_call_keeps_nobody_out(store):
    forget(store, "channel:Anna", dry=True)
    assert not store.list("barred") and len(add_videos(store, [Video.of("new.mp4", channel="Anna")])) == 6


def test_the_pictures_and_sounds_in_the_tables_tell_a_copy_whose_measurements_were_taken_back(store):
    """Its row has changed; until it is measured anew, its clip lies in the shards."""
    for path in store.list("ledger"):
        if "v4" in path:
            store.delete(path)
    assert forget(store, "video:v3").videos == ["v3", "v4"]
