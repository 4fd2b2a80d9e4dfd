"""A store that is shared with others, or does not answer for a while."""

import errno
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from s3fs import S3FileSystem

from manifests import s3 as s3_client
from manifests.store import Store, UnreachableError, _Remote
from pipeline.cli import main
from pipeline.disk import disk_fault
from pipeline.job import Job, write_job
from pipeline.ledger import READERS, is_forgotten
from tests.server import Web


@pytest.fixture
def s3(monkeypatch):
    """An S3 on the loopback, whose client does not wait between its requests."""
    with Web() as web:
        for name, value in {
            "AWS_ENDPOINT_URL": web.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
        S3FileSystem.clear_instance_cache()  # fsspec keeps one per place, with the endpoint that it met
        yield web
        S3FileSystem.clear_instance_cache()


def counted(web, expected):
    """How many requests there were: the server's threads may count the last after the client has given it up."""
    for _ in range(500):
        if web.asked() >= expected:
            break
        time.sleep(0.01)
    return web.asked()


def test_a_short_outage_of_an_object_store_is_waited_for(s3):
    s3.file("/bucket/set/x", b"1")
    s3.status("/bucket/set/x", 500, times=8)
    assert Store("s3://bucket/set").get("x") == b"1"


@pytest.mark.parametrize("call", ["get", "exists", "list", "get_file"])
@pytest.mark.parametrize("how", ["hangs up", "says nothing"])
def test_a_store_that_takes_requests_and_answers_none_is_asked_no_oftener_than_one_with_faults(
    how, call, s3, monkeypatch, tmp_path
):
    if how == "says nothing":  # where it hangs up, one that takes longer than this would not be repeated
        monkeypatch.setattr("fsspec.config.conf", {"s3": {"config_kwargs": {"read_timeout": 0.05}}})
    for path in ("/bucket", "/bucket/set/x"):
        s3.route(path, lambda handler: how == "hangs up" or handler.web._released.wait(60))
    given = {"list": ("",), "get_file": ("x", tmp_path)}
    with pytest.raises(UnreachableError, match="s3://bucket/set does not answer: "):
        getattr(Store("s3://bucket/set"), call)(*given.get(call, ("x",)))
    expected = s3_client.REQUESTS * (1 + (how == "hangs up"))  # aiohttp repeats what is hung up on once, by itself
    assert counted(s3, expected) == expected


def test_a_body_that_breaks_off_is_asked_for_anew(s3, tmp_path):
    s3.truncated("/bucket/set/x", b"12345", 2, times=1)
    assert Store("s3://bucket/set").get_file("x", tmp_path).read_bytes() == b"12345"


def test_a_large_object_whose_body_breaks_off_again_and_again_is_taken_up_where_it_was(s3, tmp_path, monkeypatch):
    """s3fs by itself has an object of more than a block (50 MiB) in parts, and asks for none of them twice."""
    monkeypatch.setattr("fsspec.config.conf", {"s3": {"default_block_size": 2}})
    firsts = []

    def half(handler):
        firsts.append(int((handler.headers.get("Range") or "bytes=0-")[6:].partition("-")[0]))
        rest = b"12345678"[firsts[-1] :]
        handler.send_part(rest, len(rest) // 2 if len(firsts) < 4 else len(rest))

    s3.route("/bucket/set/x", half)
    assert Store("s3://bucket/set").get_file("x", tmp_path).read_bytes() == b"12345678"
    assert firsts == [0, 4, 6, 7]


def test_a_busy_store_is_waited_for_by_all_who_read_a_ledger_at_once(s3):
    """botocore by itself lets a process repeat a hundred requests: of 32 readers each three."""
    paths = [f"x{n}" for n in range(READERS)]
    for path in paths:
        s3.file(f"/bucket/set/{path}", b"1")
        s3.status(f"/bucket/set/{path}", 503, times=s3_client.REQUESTS - 1)
    assert len(Store("s3://bucket/set").get_some(paths)) == READERS


def test_what_a_bucket_does_not_let_go_is_told(bucket):
    """S3 answers 200 to a request to delete what it refuses to; those who were to be forgotten would stay."""
    store = Store(f"{bucket}/out")
    store.put("blobs/a/x", b"1")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::set/*"}
    client = boto3.client("s3")
    client.put_bucket_policy(Bucket="set", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    with pytest.raises(PermissionError, match=r"out/blobs.* was not deleted: Access Denied"):
        store.delete("blobs")
    client.delete_bucket_policy(Bucket="set")
    store.delete("blobs")
    assert store.list("blobs") == []


def test_one_whom_s3_sends_back_as_others_are_at_an_object_has_not_created_it(s3, monkeypatch):
    """A turn at a host, say: the video would count as failed."""
    handler = s3._server.RequestHandlerClass
    monkeypatch.setattr(handler, "do_PUT", handler.do_GET, raising=False)
    s3.status("/bucket/set/turn", 409)
    assert not Store("s3://bucket/set").create("turn", b"")


def test_an_object_that_a_store_failed_to_delete_is_an_outage():
    failed = {"Errors": [{"Key": "x", "Code": "InternalError", "Message": "try again"}]}

    class Failing:
        def rm(self):
            s3_client._refuse_undeleted("delete_objects", failed)

    with pytest.raises(UnreachableError, match=r"s3://bucket does not answer: .*x was not deleted: try again"):
        _Remote(Failing(), "s3://bucket").rm()


@pytest.mark.parametrize("by", ["AWS_MAX_ATTEMPTS", "FSSPEC"])
def test_how_often_the_user_wants_an_object_store_asked_is_how_often_it_is(s3, by, monkeypatch):
    s3.status("/bucket/set/x", 500)
    if by == "FSSPEC":
        config = {"s3": {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 2}}}}
        monkeypatch.setattr("fsspec.config.conf", config)
    else:
        monkeypatch.setenv(by, "2")
    monkeypatch.setattr("botocore.retryhandler.delay_exponential", lambda *_, **__: 0.0)
    with pytest.raises(UnreachableError):
        Store("s3://bucket/set").get("x")
    assert s3.asked("/bucket/set/x") == 2


@pytest.mark.parametrize("attempts", [None, "2"])
def test_all_who_read_a_ledger_ask_an_object_store_at_once(s3, attempts, monkeypatch):
    if attempts:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", attempts)
    everyone = threading.Barrier(READERS, timeout=30)
    s3.route("/bucket/set/x", lambda handler: (everyone.wait(), handler.send_file(b"1", "text/plain")))
    with ThreadPoolExecutor(READERS) as pool:
        assert list(pool.map(Store("s3://bucket/set").get, ["x"] * READERS)) == [b"1"] * READERS


def test_how_many_connections_the_user_wants_there_to_be_is_how_many_there_are(monkeypatch):
    monkeypatch.setattr("fsspec.config.conf", {"s3": {"config_kwargs": {"max_pool_connections": 3}}})
    assert s3_client.options()["config_kwargs"]["max_pool_connections"] == 3


def test_a_long_outage_is_told_in_one_line_whether_the_store_answers_with_faults_or_not_at_all(s3, capsys, monkeypatch):
    s3.status("/bucket/set/job.json", 500)
    for url in (s3.url, "http://127.0.0.1:9"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        S3FileSystem.clear_instance_cache()
        assert main(["report", "--store", "s3://bucket/set"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: s3://bucket/set does not answer: ") and err.count("\n") == 1
        assert err.endswith("; run the same command again when it does\n")


def test_what_is_not_there_not_allowed_or_not_known_to_a_store_is_no_outage(s3):
    store = Store("s3://bucket/set")
    s3.status("/bucket/set/secret", 403)
    s3.status("/bucket/set/new", 501)
    with pytest.raises(OSError, match="Not Implemented") as unknown:
        store.get("new")
    assert disk_fault(unknown.value) is None
    with pytest.raises(FileNotFoundError):
        store.get("x")
    with pytest.raises(PermissionError) as refused:
        store.get("secret")
    assert disk_fault(refused.value) is None


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_folder_that_cannot_be_read_is_not_an_empty_one(code, tmp_path, monkeypatch, capsys):
    store = Store(str(tmp_path))
    write_job(store, Job(recipe="sample"))
    for name in "ab":
        store.put(f"tombstones/{name}/x.json", b"{}")
    away, scandir = tmp_path / "tombstones" / "b", os.scandir

    def lost(path):
        if str(path) == str(away):
            raise OSError(code, os.strerror(code), str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", lost)
    assert store.list("wanted") == [] and store.list("tombstones/a") == ["tombstones/a/x.json"]
    with pytest.raises(UnreachableError, match=str(away)):
        store.list("tombstones")
    assert main(["report", "--store", store.url]) == 2
    err = capsys.readouterr().err
    assert str(away) in err and os.strerror(code) in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EIO, UnreachableError), (errno.ESTALE, UnreachableError), (errno.EACCES, PermissionError)]
)
def test_a_video_was_not_forgotten_only_where_the_disk_says_so(code, kind, tmp_path, monkeypatch):
    store, stat = Store(str(tmp_path)), os.stat
    store.put("tombstones/x.json", b"{}")
    assert is_forgotten(store, "x") and not is_forgotten(store, "y")

    def lost(path, **how):
        if "tombstones" in str(path):
            raise OSError(code, os.strerror(code), str(path))
        return stat(path, **how)

    monkeypatch.setattr("os.stat", lost)
    with pytest.raises(kind, match="tombstones/x"):
        is_forgotten(store, "x")


def test_a_folder_that_may_not_be_read_or_is_a_file_is_told_and_one_that_went_meanwhile_is_empty(tmp_path, monkeypatch):
    store, scandir = Store(str(tmp_path)), os.scandir
    store.put("a/b/x", b"1")
    with pytest.raises(NotADirectoryError, match="a/b/x"):
        store.list("a/b/x")
    with pytest.raises(NotADirectoryError, match="a/b/x"):
        store.folders("a/b/x")

    def within(error):
        monkeypatch.setattr("os.scandir", lambda path: scandir(path if str(path).endswith("/a") else error(str(path))))

    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    within(forbidden)
    with pytest.raises(PermissionError, match="a/b"):
        store.list("a")
    within(lambda path: f"{path}-gone")
    assert store.list("a") == []


def test_what_is_listed_lies_below_the_root_however_it_is_written(tmp_path, monkeypatch):
    Store(str(tmp_path)).put("set/a/x", b"1")
    monkeypatch.chdir(tmp_path)
    for url in ("set", "./set/", f"{tmp_path}/set", f"file://{tmp_path}/set"):
        assert [Store(url).list(prefix) for prefix in ("", "a", "a/")] == [["a/x"]] * 3


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_no_store_is_in_a_folder_that_others_would_take_for_another(scheme, tmp_path):
    """Results for `set::1` and for `set::2` had both gone to `set`."""
    with pytest.raises(ValueError, match=r"set::1': fsspec reads '::' as a chain of places"):
        Store(f"{scheme}{tmp_path}/set::1").put("x", b"1")
    assert not list(tmp_path.iterdir())


def test_what_marks_a_folder_of_a_bucket_is_no_object_and_goes_with_it(bucket):
    """Of `ledger/KEY/ok/` a video would be known, named ok."""
    store, client = Store(f"{bucket}/marked"), boto3.client("s3")
    for folder in ("marked/", "marked/a/", "marked/a/b/"):
        client.put_object(Bucket="set", Key=folder, Body=b"")
    store.put("a/b/x", b"1")
    for prefix in ("", "a", "a/b"):
        assert store.list(prefix) == list(store.sizes(prefix)) == list(store.stamps(prefix)) == ["a/b/x"]
    store.delete("a")
    assert [one["Key"] for one in client.list_objects_v2(Bucket="set", Prefix="marked")["Contents"]] == ["marked/"]


@pytest.mark.parametrize("kind", ["disk", "memory", "s3"])
def test_what_is_deleted_is_what_is_named_and_no_pattern(kind, tmp_path, request):
    """Of a source called `Talk. Who [abc]` a bucket had kept the bytes."""
    places = {"disk": lambda: tmp_path, "memory": lambda: f"memory://{tmp_path.name}-names"}
    root = places.get(kind, lambda: f"{request.getfixturevalue('bucket')}/names")()
    names = ["11", "1?", "[1]"]
    for at, name in enumerate(names[1:]):
        store, beside = Store(f"{root}/{at}/{name}"), Store(f"{root}/{at}/12")
        for path in ("a/x", *names):
            store.put(path, b"1")
            beside.put(path, b"1")
        store.delete("a")
        store.delete(name)
        assert (store.list(""), beside.list("")) == ([one for one in names if one != name], [*names, "a/x"])


@pytest.mark.parametrize("kind", ["disk", "memory", "s3"])
def test_the_folders_right_below_one_are_told_and_nothing_else(kind, tmp_path, request):
    places = {"disk": lambda: tmp_path, "memory": lambda: f"memory://{tmp_path.name}-folders"}
    root = places.get(kind, lambda: f"{request.getfixturevalue('bucket')}/x")()
    store = Store(f"{root}/set")
    for path in ("a/x", "a/c/x", "a/b/y/z/x", "ab/d/x"):
        store.put(path, b"1")
    assert (store.folders("a"), store.folders("a/c"), store.folders("none")) == (["a/b", "a/c"], [], [])
    assert store.folders("a/b") == ["a/b/y"]


def test_the_bytes_of_an_object_are_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    store, synced, sync = Store(str(tmp_path / "set")), [], os.fsync
    (tmp_path / "made").write_bytes(b"a clip")

    def look(opened):
        synced.append((os.pread(opened, 9, 0), store.exists("x")))
        sync(opened)

    monkeypatch.setattr("os.fsync", look)
    store.put("x", b"1")
    store.delete("x")
    store.put_file(tmp_path / "made", "x", move=True)
    store.delete("x")
    with store.writing("x") as target:
        target.write_bytes(b"a shard")
    store.put("y", b"1", is_synced=False)
    assert synced == [(b"1", False), (b"a clip", False), (b"a shard", False)]


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_what_another_run_has_deleted_meanwhile_is_deleted(kind, tmp_path, monkeypatch):
    url = str(tmp_path) if kind == "disk" else "memory://deleted"
    store, other = Store(url), Store(url)
    store.put("finished.json", b"1")
    remove = store._fs.rm

    def late(*given, **options):
        monkeypatch.undo()
        other.delete("finished.json")
        remove(*given, **options)

    monkeypatch.setattr(store._fs, "rm", late)
    store.delete("finished.json")
    store.delete("finished.json")
    assert not store.exists("finished.json")


def test_an_object_of_s3_is_had_by_one_request_and_missed_by_one(s3):
    s3.file("/bucket/set/x", b"1")
    store = Store("s3://bucket/set")
    assert store.get("x") == b"1" and s3.asked() == 1
    with pytest.raises(FileNotFoundError):
        store.get("y")
    assert s3.asked() == 2, "s3fs looks for a size first, and then for a folder of that name"


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_of_several_objects_those_are_given_that_are_there_and_an_object_store_is_asked_for_all_at_once(
    kind, tmp_path, monkeypatch
):
    store = Store(str(tmp_path) if kind == "disk" else f"memory://{tmp_path.name}-some")
    store.put("a", b"1")
    store.put("c", b"")
    if kind == "memory":
        together, get = threading.Barrier(3), Store.get
        monkeypatch.setattr(Store, "get", lambda self, path: (together.wait(20), get(self, path))[1])
    assert store.get_some(["a", "b", "c"]) == {"a": b"1", "c": b""}
    assert store.get_some([]) == {}


def test_thousands_of_objects_are_not_asked_for_by_as_many_threads(tmp_path, monkeypatch):
    """One for each word that `forget` was ever told, say."""
    who = set()
    monkeypatch.setattr(Store, "get", lambda self, path: who.add(threading.get_ident()) or time.sleep(0.02) or b"1")
    paths = [str(n) for n in range(1000)]
    assert len(Store("memory://many").get_some(paths)) == 1000
    assert len(who) <= 64
