"""A store that is shared with others, or does not answer for a while."""

import threading

import pytest
from s3fs import S3FileSystem

from manifests.store import _S3_REQUESTS, Store, UnreachableError
from pipeline.cli import main
from pipeline.disk import disk_fault
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


def test_a_short_outage_of_an_object_store_is_waited_for(s3):
    s3.file("/bucket/set/x", b"1")
    s3.status("/bucket/set/x", 500, times=8)
    assert Store("s3://bucket/set").get("x") == b"1"


@pytest.mark.parametrize("call", ["get", "exists", "list", "get_file"])
@pytest.mark.parametrize("how", ["hangs up", "says nothing"])
def test_a_store_that_takes_requests_and_answers_none_is_asked_no_oftener_than_one_with_faults(
    how, call, s3, monkeypatch, tmp_path
):
    monkeypatch.setattr("fsspec.config.conf", {"s3": {"config_kwargs": {"read_timeout": 0.05}}})
    for path in ("/bucket", "/bucket/set/x"):
        s3.route(path, lambda handler: how == "hangs up" or handler.web._released.wait(60))
    given = {"list": ("",), "get_file": ("x", tmp_path)}
    with pytest.raises(UnreachableError, match="s3://bucket/set does not answer: "):
        getattr(Store("s3://bucket/set"), call)(*given.get(call, ("x",)))
    assert s3.asked() == _S3_REQUESTS * (1 + (how == "hangs up")), "aiohttp repeats what is hung up on once, by itself"


def test_a_body_that_breaks_off_is_asked_for_anew(s3, tmp_path):
    s3.truncated("/bucket/set/x", b"12345", 2, times=1)
    assert Store("s3://bucket/set").get_file("x", tmp_path).read_bytes() == b"12345"


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
