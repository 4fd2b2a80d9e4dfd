"""What a store remembers of the run that made it."""

import hashlib
import shlex

import pytest

from manifests.codec import to_json
from manifests.records import Video
from manifests.store import Store
from pipeline import run as running
from pipeline.cli import main
from pipeline.job import Job, add_videos, drop_videos, masked, read_job, read_videos, write_job
from pipeline.stage import keys


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path))


def test_a_job_comes_back_as_it_was_written(store):
    job = Job(recipe="sample", policy="strict", overrides=("sync.reach=10",), command="x", versions={"ray": "1"})
    assert read_job(store) is None
    write_job(store, job)
    assert read_job(store) == job and job.build().sync.reach == 10 and job.build().policy.name == "strict"


def test_an_empty_job_as_a_power_cut_leaves_it_is_none_and_a_broken_one_says_where_it_lies(store):
    for path, text in (("job.json", b'{"recipe":'), ("wanted/000001-a.jsonl", b"{}\n{")):
        store.put(path, text)
        with pytest.raises(ValueError, match=store.at(path)):
            (read_job if path == "job.json" else read_videos)(store)
    store.put("job.json", b"")
    assert read_job(store) is None


def test_how_a_site_is_reached_is_told_to_the_run_and_to_nobody_after_it(store, tmp_path, monkeypatch):
    cookies, url, told = tmp_path / "cookies.txt", "http://x.invalid/a", []
    cookies.write_text("# Netscape HTTP Cookie File\nx.invalid\tFALSE\t/\tFALSE\t2147483647\tsession\ts3cr3t\n")
    sets = (
        f"fetch.access.cookies={cookies}",
        "fetch.access.proxy=me:s3cr3t@gate:8080",
        'fetch.access.extractor_args=["youtube:po_token=web+s3cr3t"]',
        "fetch.access.tries=3",
        "fetch.pace_url=sftp://me:s3cr3t@host/pace",
        "sync.batch=7",
    )
    words = [word for one in sets for word in ("--set", one)]
    monkeypatch.setattr("sys.argv", ["pipeline", "run", *words])
    monkeypatch.setattr(running, "_carry", lambda this, *_: told.append(this.recipe.fetch.access))
    assert main(["run", "--manifest", url, "--until", "fetch", "--store", store.url, *words]) == 0
    assert (told[0].cookies, told[0].proxy, told[0].tries) == (str(cookies), "me:s3cr3t@gate:8080", 3)
    cookies.unlink()
    for command in (["report"], ["judge", "--policy", "strict"], ["forget", f"video:{Video.of(url).id}"]):
        assert main([*command, "--store", store.url]) == 0
    job, page = read_job(store), store.get("report.html").decode()
    assert job is not None and job.overrides == ("sync.batch=7",)
    assert "fetch.access.tries=3" in job.command and "fetch.access.tries=3" in page and "sftp://***@host/pace" in page
    assert "s3cr3t" not in job.command + page and str(cookies) not in job.command + page


@pytest.mark.parametrize("one_word", [False, True])
def test_who_logs_in_at_the_address_of_a_list_and_its_signature_are_kept_nowhere(store, monkeypatch, one_word):
    url = "https://me:s3cr3t@lists.invalid/a/list.csv?X-Amz-Expires=60&token=s3cr3t=&s3cr3t#s3cr3t"
    asked = ["run", *([f"--manifest={url}"] if one_word else ["--manifest", url]), "--until", "fetch"]
    monkeypatch.setattr("manifests.table._bytes", lambda source: b"url\nhttp://x.invalid/a\n" if source == url else b"")
    monkeypatch.setattr("sys.argv", ["pipeline", *asked])
    monkeypatch.setattr(running, "_carry", lambda *_: None)
    for command in (asked, ["report"], ["judge", "--policy", "strict"]):
        assert main([*command, "--store", store.url]) == 0
    written = {path: store.get(path) for path in store.list("") if not path.endswith(".parquet")}
    assert {"job.json", "report.html"} <= {*written} and not any(b"s3cr3t" in data for data in written.values())
    assert "https://***@lists.invalid/a/list.csv?***" in read_job(store).command


def test_a_command_keeps_which_video_of_youtube_it_asks_for_and_no_more_of_any_address():
    for word, shown in (
        ("https://www.youtube.com/watch?v=abcdefghijk&si=x", "https://www.youtube.com/watch?v=abcdefghijk"),
        ("https://h.invalid/watch?v=abcdefghijkl", "https://h.invalid/watch?***"),
        ("https://h.invalid/a?v=abcdefghijk", "https://h.invalid/a?***"),
        ("zip://*.csv::https://h.invalid/a.zip?sig=x", "zip://*.csv::https://h.invalid/a.zip?***"),
        ("films/what?.mp4", "films/what?.mp4"),
        ("policy.licences=cc,by", "policy.licences=cc,by"),
    ):
        assert masked(word) == masked(masked(word)) == shown


def test_a_job_written_before_passwords_were_left_out_is_read_without_them(store):
    sets = ("fetch.access.cookies=no/such.txt", 'fetch.access={"proxy":"http://me:s3cr3t@gate"}', "cascade=true")
    old = to_json({"recipe": "own", "overrides": sets, "cascade": (None, sets), "command": shlex.join(["x", *sets])})
    store.put("job.json", old)
    job = read_job(store)
    assert job is not None and job.build().cascade and b"s3cr3t" not in to_json(job) and b"no/such" not in to_json(job)


def test_a_run_leaves_the_keys_of_its_stages_and_of_those_that_it_leaves_out_the_ones_of_before(store, monkeypatch):
    monkeypatch.setattr(running, "_carry", lambda *_: None)
    write_job(store, Job(recipe="own", stages={"fetch": "fetch-0000000000", "sync": "sync-0000000000"}))
    until = ["run", "--manifest", "http://x.invalid/a", "--until", "fetch", "--store", store.url]
    assert main(until) == 0 and main(["judge", "--policy", "strict", "--store", store.url]) == 0
    job = read_job(store)
    now = keys(job.build().stages(), Video)
    assert job.policy == "strict" and job.stages == {"fetch": now["fetch"], "sync": "sync-0000000000"}
    assert not job.is_of(now) and Job(recipe="own").is_of(now) and Job(recipe="own", stages=now).is_of(now)


def test_a_store_does_not_mix_recipes(store):
    write_job(store, Job(recipe="sample"))
    with pytest.raises(ValueError, match="holds the results of recipe 'sample'; give 'wild' a --store of its own"):
        write_job(store, Job(recipe="wild"))


def test_an_assignment_of_one_name_takes_the_place_of_the_one_before():
    job = Job(recipe="sample").changed(None, ["shard_bytes=500", "policy.max_yaw_deg=10"])
    assert job.changed(None, ["shard_bytes=900"]).overrides == ("policy.max_yaw_deg=10", "shard_bytes=900")


def test_a_limit_of_one_language_that_a_later_one_for_all_takes_back_is_told_by_nobody():
    job = Job(recipe="sample").changed(None, ["policy.min_confidence.de=2.6", "policy.max_yaw_deg=10"])
    assert job.changed(None, ["policy.min_confidence=1.2"]).overrides == (
        "policy.max_yaw_deg=10",
        "policy.min_confidence=1.2",
    )


def test_a_new_policy_takes_the_old_policy_s_changes_off():
    job = Job(recipe="sample", overrides=("sync.reach=10", "policy.min_face_px=5"))
    changed = job.changed("strict", ["policy.max_yaw_deg=10"])
    assert changed.overrides == ("sync.reach=10", "policy.max_yaw_deg=10")
    policy = changed.build().policy
    assert (policy.name, policy.max_yaw_deg, policy.min_face_px) == ("strict+max_yaw_deg=10", 10, 160)


def test_videos_add_up_and_the_newest_word_wins(store):
    first = [Video.of("a", language="de"), Video.of("b")]
    add_videos(store, first)
    both = add_videos(store, [Video.of("a", language="fr"), Video.of("c")])
    assert both == read_videos(store) and {v.url: v.language for v in both} == {"a": "fr", "b": None, "c": None}


def test_a_part_of_a_video_is_a_video_of_its_own():
    whole, part = Video.of("a"), Video.of("a", start_s=1.0, end_s=2.0)
    assert whole.id != part.id and part.id == Video.of("a", start_s=1, end_s=2).id


def test_parts_late_in_a_long_source_are_told_apart_and_others_keep_their_ids():
    assert Video.of("a", start_s=12345.62, end_s=12350.11).id != Video.of("a", start_s=12345.64, end_s=12350.14).id
    assert Video.of("a", start_s=1234567, end_s=2e6).id == Video.of("a", start_s=1234567.0, end_s=2000000).id
    assert Video.of("a", start_s=12.5, end_s=1e6).id == hashlib.sha256(b"a#t=12.5,1e+06").hexdigest()[:16]


def test_of_two_runs_that_add_at_once_neither_loses_the_other_s_videos(store, monkeypatch):
    put, mine, theirs = Store.put, Video.of("mine"), Video.of("theirs")

    def late(self, path, data):  # the other run reads and writes between our reading and our writing
        monkeypatch.setattr(Store, "put", put)
        add_videos(Store(store.url), [theirs])
        put(self, path, data)

    monkeypatch.setattr(Store, "put", late)
    add_videos(store, [mine])
    assert {video.url for video in read_videos(store)} == {"mine", "theirs"}


def test_a_list_in_one_object_as_it_once_was_is_read_added_to_and_taken_from(store):
    old = [Video.of("a", language="de"), Video.of("b")]
    store.put("videos.jsonl", b"\n".join(to_json(video).replace(b',"stamp":""', b"") for video in old))
    assert {*read_videos(store)} == {*old}
    add_videos(store, [Video.of("a", language="fr"), Video.of("b")])
    assert {video.url: video.language for video in read_videos(store)} == {"a": "fr", "b": None}
    drop_videos(store, [Video.of("a").id])
    assert read_videos(store) == (Video.of("b"),)


def test_what_says_nothing_new_is_not_written_again(store):
    add_videos(store, [Video.of("a"), Video.of("b")])
    before = store.list("wanted")
    add_videos(store, [Video.of("a")])
    assert store.list("wanted") == before and len(before) == 1


def test_a_forgotten_video_does_not_come_back_into_the_list_and_leaves_it_where_it_did(store):
    gone, other = Video.of("gone"), Video.of("other")
    add_videos(store, [gone])
    store.put(f"tombstones/{gone.id}.json", b"{}")
    assert add_videos(store, [gone, other]) == (other,) == read_videos(store)


def test_settings_that_cost_no_measurement_are_compared_by_name():
    own = Job(recipe="sample", overrides=("sync.reach=10",))
    judged = own.changed(None, ["policy.max_offset_frames=9"]).changed(None, ["shard_bytes=500"])
    said = ("policy.max_offset_frames=default (was 9)", "shard_bytes=default (was 500)")
    assert own.unlike(judged) == said and Job(recipe="sample", policy="sample").unlike(own) == ()
    assert Job(recipe="sample", policy="strict").unlike(own) == ("policy=strict (was sample)",)


def test_a_job_written_before_there_were_cascades_is_none(store):
    store.put("job.json", b'{"recipe":"wild","policy":null,"overrides":["sync.reach=10"]}')
    job = read_job(store)
    assert job is not None and job.overrides == ("cascade=false", "sync.reach=10") and not job.build().cascade


def test_a_policy_given_for_the_cascade_alone_outlives_a_judging():
    job = Job(recipe="sample", overrides=("cascade=true", 'cascade_policy={"min_face_px": 20}'))
    assert job.build().cascade_policy is not None and job.build().cascade_policy.min_face_px == 20
    assert keys(job.changed("strict", ()).build().stages(), Video) == keys(job.build().stages(), Video)


def test_another_policy_is_judged_by_what_the_run_s_own_has_left_of_a_cascade(store):
    job = Job(recipe="sample", overrides=("cascade=true", "policy.min_face_px=50"))
    other = job.changed("strict", ["policy.max_yaw_deg=10"]).changed(None, ["policy.min_motion=0.1"])
    assert other.build().policy.name == "strict+max_yaw_deg=10,min_motion=0.1"
    assert keys(other.build().stages(), Video) == keys(job.build().stages(), Video)
    write_job(store, other)
    assert read_job(store) == other
    again = Job(recipe="sample", policy="strict", overrides=("cascade=true",))
    assert keys(again.build().stages(), Video) != keys(job.build().stages(), Video)
