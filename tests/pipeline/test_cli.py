"""What the command line takes, and what it answers to what it does not take."""

import errno
import json
import os
import re
import shlex
import socket
from pathlib import Path
from typing import NoReturn

import pytest
from ray._private.utils import validate_socket_filepath
from rich.console import Console
from s3fs import S3FileSystem

from manifests.records import Video
from manifests.store import Store
from pipeline import finish as finishing
from pipeline.cli import main, parser
from pipeline.cluster import Cluster, _join, connected, start_local
from pipeline.ending import print_paths
from pipeline.job import Job, add_videos, read_job, write_job
from pipeline.ledger import Ledger, Outcome
from pipeline.recipes import build
from pipeline.stage import keys
from stages import weights

GOLDEN = Path(__file__).parents[1] / "golden" / "cli.json"


def surface() -> dict[str, list[str]]:
    """Every option of every command."""
    found = {}
    (commands,) = (action for action in parser()._actions if hasattr(action, "choices") and action.choices)
    for name, one in commands.choices.items():
        found[name] = sorted("/".join(a.option_strings) or a.dest for a in one._actions if a.dest != "help")
    return found


def test_no_option_comes_or_goes_unseen():
    assert surface() == json.loads(GOLDEN.read_text()), "write tests/golden/cli.json anew if this is meant"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("run --langs 11", "--langs 11: must be a number from 1 to 10, or any of en,de,zh,"),
        ("run --langs 0", "must be a number from 1 to 10"),
        ("run --langs de,xx", "must be a number from 1 to 10"),
        ("run --langs ,", "must be a number from 1 to 10"),
        ("run wilde", "no recipe 'wilde'; there are sample, wild, own"),
        ("run --hours 2", "--hours belongs to the recipe wild"),
        ("run wild --hours 0", "--hours 0: must be more than 0"),
        ("run wild --hours inf", "--hours inf: must be more than 0 and finite"),
        ("run wild --hours nan", "--hours nan: must be more than 0 and finite"),
        ("run wild --hours many", "argument --hours: invalid float value: 'many'"),
        ("run wild --manifest x.csv", "--manifest and wild exclude each other"),
        ("run own", "recipe own needs --manifest"),
        ("run --manifest nowhere.csv", "nowhere.csv"),
        ("run --language de", "--language goes with --manifest"),
        ("run --policy lax", "--policy lax: no such policy; there are paper, latentsync, strict, sample"),
        ("run --set sync.bach=64", "ScoreSync has no 'bach', only "),
        ("run --set sync.batch=many", "sync.batch=many: Expected `int`"),
        ("run --set discover.search=x", "--set discover.search=x: belongs to the recipe wild; sample is told"),
        ("run wild --set discover.search=x", "search: 'x' has no {query} where the words go"),
        ("run wild --set discover.access.proxy=x", "Discovery has no 'access', only min_duration_s, max_duration_s, "),
        ("run --set sync.deadline_s=0", "sync.deadline_s: 0 is not more than 0"),
        ("run --set fetch.manners.interval_s=-1", "interval_s: -1 is not at least 0"),
        ("run --set policy.min_confidence.zh=nan", "expected a finite number"),
        ("run --set fetch.access.rate_limit_bytes_per_s=0", "rate_limit_bytes_per_s: 0 is not more than 0"),
        ("run --set fetch.access.proxy=sock5://me:pw@h:1", "error: proxy: not like http://host:port or socks5:"),
        ("run --set fetch.access.proxy=http:/h", "proxy: not like http://host:port"),
        ("run --set fetch.access.cookies=file", "cookies: file holds no cookies in the form of cookies.txt"),
        ('run wild --set fetch.access.extractor_args=["youtube:lang=de"]', "youtube:lang=de: yt-dlp reads a video's"),
        ("run --until dinner", "--until dinner: no such stage; there are fetch, watch, clip, sync, speech, identity"),
        ("run --cpus 2 --address 127.0.0.1:6379", "--cpus is for a Ray that is started here"),
        ("run --set shard_bytes=0", "shard_bytes: 0 is not at least 1"),
        ("run --manifest http://x.invalid/a.mp4 --language #", "'#' is neither a BCP-47 tag nor the English name"),
        ("run --store {file}", "Not a directory"),
        ("run --cpus 0", "--cpus 0: must be at least 1"),
        (f"judge --store {'a' * 300}", "File name too long"),
        ("run --store gs://bucket/set", "gs://bucket/set: "),
        ("verify gs://bucket/set/shards", "gs://bucket/set: "),
        ("run --store s3://", "'s3://': not a place for results"),
        ("run --store http://x.invalid/set", "http://x.invalid/set: a web server takes no results"),
        ("run --store ftp://x.invalid/set", "ftp://x.invalid/set: "),
        ("run --manifest ftp://x.invalid/a.mp4", "ftp://x.invalid/a.mp4: "),
        ("run --train huge", "--train huge: no such recipe; there are tiny, small, paper"),
        ("run --train --until watch", "--train needs the shards, which --until and --dry do not write"),
        ("run --set train.frames=4", "--set train.frames=4: belongs to --train"),
        ("run --train tiny --set train.wings=2", "--set wings: Recipe has no 'wings', only"),
        ("judge", "holds no results; make some: python -m pipeline run"),
        ("show abc", "holds no results; make some: python -m pipeline run"),
        ("show abc --store http://x.invalid/set", "http://x.invalid/set: a web server takes no results"),
        ("verify", "no tar in"),
        ("verify /shards-of-nobody --store mine", "these shards, or those of --store mine, not both"),
        ("verify /shards-of-nobody", "no tar in /shards-of-nobody"),
        ("models fetch", "models fetch needs a name"),
        ("models fetch nonsense", "nonsense"),
        ("models list nonsense", "no weights named 'nonsense'; there are sample/faces, "),
        ("models check sample/sync --sha256 00", "--url and --sha256 belong to models fetch of one name"),
        ("models fetch base small --url http://x.invalid/y", "--url and --sha256 belong to models fetch of one name"),
        ("run --address 127.0.0.1:9", "no Ray answers at 127.0.0.1:9"),
        ("run --address http://127.0.0.1:8265", "--address http://127.0.0.1:8265 (or RAY_ADDRESS): expected HOST:PORT"),
        ("run --address head", "--address head (or RAY_ADDRESS): expected HOST:PORT"),
        ("run --address head:port", "--address head:port (or RAY_ADDRESS): expected HOST:PORT"),
        ("models", "the following arguments are required: action (see"),
        ("models burn", "invalid choice: 'burn'"),
        ("dance", "invalid choice: 'dance'"),
        ("", "the following arguments are required: command"),
    ],
)
def test_a_wrong_request_is_answered_in_one_line_with_exit_code_2(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    try:
        code = main(arguments.replace("{file}", "file").split())
    except SystemExit as stopped:  # argparse leaves by itself
        code = stopped.code
    err = capsys.readouterr().err
    assert code == 2 and says in err and err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists(), "a refused request leaves nothing behind"


def test_an_empty_choice_of_languages_is_not_all_of_them(tmp_path, capsys):
    assert main(["run", "--langs", "", "--dry", "--store", str(tmp_path / "out")]) == 2
    assert "must be a number from 1 to 10" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", [[], ["own"], ["wild"]])
def test_an_empty_name_of_a_list_is_not_the_sample(recipe, tmp_path, capsys):
    assert main(["run", *recipe, "--manifest", "", "--dry", "--store", str(tmp_path / "out")]) == 2
    assert "--manifest ''" in capsys.readouterr().err


def test_an_address_where_nobody_answers_is_refused_at_once():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"no Ray answers at {address}"), connected(Cluster(address)):
            pass


@pytest.mark.parametrize("said", ["run", "run wild --langs de"])
def test_an_address_in_the_environment_is_refused_before_anything_is_written_and_its_way_out_is_named(
    said, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert main(said.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no Ray answers at 127.0.0.1:9") and err.count("\n") == 1
    assert "leave out --address and RAY_ADDRESS" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", ["run --manifest list.txt", "run wild --langs de"])
def test_a_run_whose_weights_cannot_be_had_leaves_nothing_behind(arguments, tmp_path, capsys, monkeypatch):
    def missing(name: str) -> Path:
        raise weights.WeightsMissingError(f"{name} is nowhere")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "path", missing)
    (tmp_path / "list.txt").write_text("a.mp4\n")
    (tmp_path / "a.mp4").touch()
    assert main(arguments.split()) == 2
    assert "is nowhere" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("run --manifest list.txt --language de-AT", ["align-de"]),
        ("run wild --langs de,pl", ["align-de", "align-pl"]),
    ],
)
def test_the_aligners_of_the_expected_languages_are_had_before_a_run(arguments, wanted, tmp_path, capsys, monkeypatch):
    asked = []

    def path(name: str) -> None:
        asked.append(name)
        if name == wanted[-1]:
            raise weights.WeightsMissingError(weights._way_out(name))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "path", path)
    (tmp_path / "list.txt").write_text("a.mp4\n")
    (tmp_path / "a.mp4").touch()
    assert main(arguments.split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"models fetch {wanted[-1]}" in err and "`--set speech.align=false`" in err
    assert [name for name in asked if name.startswith("align-")] == wanted


def test_a_store_of_another_recipe_is_refused_before_anything_is_looked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_job(Store("out"), Job(recipe="own"))
    assert main(["run", "--dry"]) == 2
    assert "out holds the results of recipe 'own'" in capsys.readouterr().err


def test_cores_are_not_given_to_a_ray_that_runs_elsewhere(capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert main(["run", "--cpus", "2"]) == 2
    assert "--cpus is for a Ray that is started here" in capsys.readouterr().err


def test_a_bucket_without_credentials_is_told_in_one_line(capsys, monkeypatch, tmp_path):
    S3FileSystem.clear_instance_cache()  # fsspec keeps one per place, and others here have credentials, or none
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for store, said in (("s3://nobodys-bucket/set", "credentials"), ("s3://No Bucket/set", "Invalid bucket name")):
        assert main(["judge", "--store", store]) == 2
        err = capsys.readouterr().err
        assert said in err and err.startswith("error: ") and err.count("\n") == 1
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    S3FileSystem.clear_instance_cache()
    assert main(["judge", "--store", "s3://nobodys-bucket/set"]) == 2
    assert "nobody" in capsys.readouterr().err
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("arguments", ["score --truth {place}", "report --sheet {place}"])
def test_a_folder_in_place_of_a_file_is_told_in_one_line(arguments, tmp_path, capsys):
    write_job(Store(str(tmp_path / "out")), Job(recipe="sample"))
    assert main([*arguments.replace("{place}", str(tmp_path)).split(), "--store", str(tmp_path / "out")]) == 2
    assert "Is a directory" in capsys.readouterr().err


@pytest.fixture
def small(tmp_path) -> Store:
    """A store of a job and one video that was never run."""
    store = Store(str(tmp_path / "out"))
    write_job(store, Job(recipe="sample"))
    add_videos(store, [Video.of("a.mp4")])
    return store


def test_a_disk_that_is_full_when_the_sheet_is_written_is_told_in_one_line(small, capsys):
    assert main(["report", "--sheet", "/dev/full", "--store", small.url]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: No space left on device: ") and err.count("\n") == 1


@pytest.mark.parametrize("command", ["judge --policy strict", "shard", "report"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_results_is_told_in_one_line(command, code, small, capsys, monkeypatch):
    def refused(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code), "report.html")

    with monkeypatch.context() as patched:
        patched.setattr(finishing, "write_report", refused)
        assert main([*command.split(), "--store", small.url]) == 2
    err = capsys.readouterr().err
    assert err == f"error: {os.strerror(code)}: report.html; mend that and run the same command again\n"
    assert main([*command.split(), "--store", small.url]) == 0


@pytest.mark.parametrize("size", ["0", "-5"])
def test_a_size_of_shards_that_cannot_be_leaves_the_store_as_it_was(size, small, capsys):
    assert main(["shard", "--bytes", size, "--store", small.url]) == 2
    assert f"shard_bytes: {size} is not at least 1" in capsys.readouterr().err
    assert read_job(small) == Job(recipe="sample")
    assert main(["report", "--store", small.url]) == 0


@pytest.mark.parametrize("name", ["set[final]", "a[/b]/c", "my :fire: set"])
def test_a_store_s_name_is_shown_as_it_is_and_quoted_in_commands(name, tmp_path, capsys):
    store = Store(str(tmp_path / name))
    write_job(store, Job(recipe="sample"))
    add_videos(store, [Video.of("a.mp4")])
    for command in ("report", "judge", f"show {Video.of('a.mp4').id}"):
        assert main([*command.split(), "--store", store.url]) == 0
    assert f"  report   {store.url}/report.html  the page" in capsys.readouterr().out
    store.put("shards/train-000000-0.tar", b"")  # there is something to train on
    print_paths(store, Job(recipe="own"), Console(markup=False, emoji=False))
    train, judge = (shlex.split(line, comments=True) for line in capsys.readouterr().out.splitlines()[-2:])
    assert train[:6] == ["python", "-m", "mcdm", "train", "--shards", store.at("shards")]
    assert judge == ["python", "-m", "pipeline", "judge", "--policy", "strict", "--store", store.url]


def test_nobody_is_told_to_train_on_no_clips(small, capsys):
    assert main(["report", "--store", small.url]) == 0
    out = capsys.readouterr().out
    assert "mcdm train" not in out and f"python -m pipeline report --store {small.url}    # no clip was kept" in out
    assert "by reason" not in out.lower(), "no table that is not there is spoken of"
    assert main(["verify", "--store", small.url]) == 0
    assert capsys.readouterr().out == "0 clips in 0 shards, 0.0 MB, 0 frames: 0 problems\n"


def test_a_sheet_says_how_many_clips_it_shows_none_among_them(small, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["report", "--sheet", str(sheet), "--store", small.url]) == 0
    assert f"{sheet} shows 0 of 0 kept clips\n" in capsys.readouterr().out


def test_show_says_why_a_video_waits(small, capsys):
    video = Video.of("a.mp4")
    key = keys(build("sample").stages(), Video)["fetch"]
    Ledger(small).put_off(key, video.id, "r", 1, "x.invalid asked for a pause")
    assert main(["show", video.id, "--store", small.url]) == 0
    assert re.search(r"^fetch: postponed .*\nx\.invalid asked for a pause$", capsys.readouterr().out, re.M)
    Ledger(small).write(key, video.id, Outcome(status="rejected", body={"reason": "gone", "measured": {}}))
    assert main(["show", video.id, "--store", small.url]) == 0
    assert "postponed" not in capsys.readouterr().out


def test_who_scores_own_videos_is_told_where_their_truth_goes(small, capsys):
    assert main(["score", "--store", small.url]) == 2
    assert f"knows none of the 1 videos of {small.url}; `score --truth FILE` compares" in capsys.readouterr().err


def test_a_truth_that_is_none_is_told_in_one_line(tmp_path, capsys):
    write_job(Store(str(tmp_path / "out")), Job(recipe="sample"))
    (tmp_path / "truth.json").write_text("# no")
    assert main(["score", "--truth", str(tmp_path / "truth.json"), "--store", str(tmp_path / "out")]) == 2
    assert "truth.json: not a truth.json" in capsys.readouterr().err


def test_where_no_ray_runs_auto_finds_none(monkeypatch):
    def none(*_, **__):
        raise ConnectionError("Found multiple active Ray instances: {...}.\nPlease")

    monkeypatch.setattr("ray.init", none)
    with pytest.raises(ValueError, match=r"no Ray to join at auto .*: Found multiple active Ray"):
        _join("auto")


@pytest.mark.parametrize(("late", "starts"), [(0, 1), (2, 3)])
def test_a_ray_that_was_too_late_is_started_again(late, starts, monkeypatch):
    tried = []

    def init(*_, **__):
        tried.append("start")
        if tried.count("start") <= late:
            raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: tried.append("end"))
    start_local(num_cpus=1)
    assert tried.count("start") == starts and tried.count("end") == late


def test_a_ray_of_our_own_stays_out_of_a_scratch_folder_too_long_for_its_sockets(monkeypatch):
    given = []
    monkeypatch.setattr("ray.init", lambda *_, **options: given.append(options.get("_temp_dir")))
    longest = f"/{'x' * 38}"
    validate_socket_filepath(f"{longest}/ray/session_2026-11-30_02-03-30_123456_1234567/sockets/plasma_store")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    for scratch in ("/tmp", longest, f"{longest}x"):
        monkeypatch.setenv("TMPDIR", scratch)
        start_local(num_cpus=1)
    monkeypatch.setenv("RAY_TMPDIR", longest)
    start_local(num_cpus=1)
    assert given == [None, None, str(Path("/tmp", "ray")), None]
    monkeypatch.setenv("RAY_TMPDIR", f"{longest}x")
    with pytest.raises(ValueError, match=r"RAY_TMPDIR /x+: longer than the 39 bytes"):
        start_local(num_cpus=1)


def test_what_else_hinders_ray_is_not_tried_again(monkeypatch):
    def init(*_, **__):
        raise ConnectionError("Could not read 'session_name' from GCS.")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ConnectionError, match="session_name"):
        start_local(num_cpus=1)
