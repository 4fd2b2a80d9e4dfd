"""The locked environment is made once, whatever broke off before."""

import contextlib
import fcntl
import importlib.util
import os
import subprocess
import sys
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pipeline import environment


def test_a_download_that_breaks_off_is_tried_again(tmp_path):
    line = f"import os, sys; os.mkdir('{tmp_path}/' + str(n := len(os.listdir('{tmp_path}')))); sys.exit(n < 2)"
    environment._run([sys.executable, "-c", line], tries=3)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_fails_every_time_ends_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        environment._run([sys.executable, "-c", "raise SystemExit(3)"], tries=2)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: setting up failed (exit 3): ")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """One without packages, whose commands are not started anew: that raises `InterruptedError`."""
    (tmp_path / "requirements.txt").write_text("x==1\n")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "LOCK", tmp_path / "requirements.txt")
    monkeypatch.setattr(environment, "_WITNESSES", ("no_such_package",))

    def restart(*_):
        raise InterruptedError

    monkeypatch.setattr("os.execv", restart)
    return tmp_path


def no_locks(*_):
    raise OSError(9, "Bad file descriptor")


def interpreter(checkout):
    (checkout / ".venv" / "bin").mkdir()
    (checkout / ".venv" / "bin" / "python").touch()


def test_an_environment_that_is_complete_is_used_without_a_lock(checkout, monkeypatch):
    interpreter(checkout)
    (checkout / ".venv" / "locked").write_text(sha256(b"x==1\n").hexdigest())
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(InterruptedError):
        environment.ensure()
    assert {path.name for path in checkout.iterdir()} == {"requirements.txt", ".venv"}


def test_an_environment_whose_interpreter_is_gone_is_made_anew(checkout, monkeypatch):
    (checkout / ".venv" / "locked").write_text(sha256(b"x==1\n").hexdigest())
    (checkout / ".venv" / "bin").mkdir()
    (checkout / ".venv" / "bin" / "python").symlink_to("/no/such/python3")
    made = []
    monkeypatch.setattr(environment, "_make", lambda *given: made.append(given))
    with pytest.raises(InterruptedError):
        environment.ensure()
    assert made == [(checkout / ".venv", checkout / ".venv" / "bin" / "python")]


@pytest.mark.parametrize("locks", [True, False])
def test_an_environment_is_made_where_locks_want_a_file_open_for_writing_and_where_there_are_none(
    locks, checkout, monkeypatch
):
    monkeypatch.setattr(fcntl, "flock", fcntl.lockf if locks else no_locks)  # as NFS does on Linux
    other = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    said = []

    def make(*_):
        command = [sys.executable, "-c", other, str(checkout / ".venv.lock")]
        said.append(subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode)
        interpreter(checkout)

    monkeypatch.setattr(environment, "_make", make)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            environment.ensure()
    assert said == [int(locks)], "made once, and locked meanwhile"


@pytest.mark.parametrize("broken", [False, True])
def test_an_environment_whose_making_was_broken_off_is_made_anew(broken, tmp_path, monkeypatch):
    place, ran = tmp_path / ".venv", []
    if broken:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    monkeypatch.setattr(environment, "_run", lambda command, *_, **__: ran.append(command))
    monkeypatch.setattr(environment, "_as_pip_is_told", lambda _: {})  # of the pip that is not made here
    environment._make(place, place / "bin" / "python")
    assert ran[0][1:] == ["-m", "venv", "--clear", str(place)]
    assert [command[1:3] for command in ran[1:]] == [["-m", "pip"], ["pip", "install"], ["pip", "install"]]
    told = [command[3:5] for command in ran[2:]]
    assert told == [["--python", str(place / "bin" / "python")]] * 2, "whatever UV_SYSTEM_PYTHON and UV_PYTHON say"


@pytest.fixture
def index():
    """A registry on the loopback that has nothing but another version in /other: its address, and what it is asked."""

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            other = b'<a href="absent-2-py3-none-any.whl">absent-2-py3-none-any.whl</a>' * ("/other/" in self.path)
            page = b"<!DOCTYPE html><html><body>" + other + b"</body></html>"
            self.send_response(200 if other or self.path.startswith(("/links", "/more")) else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    asked, server = [], ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("conf", "variables", "wanted"),
    [
        ({"index-url": "{}/own"}, {"PIP_INDEX_URL": "{}/nearer"}, {"/nearer/absent"}),
        (
            {"index-url": "{}/own", "extra-index-url": "\n  {0}/other\n  {0}/third", "quiet": "1"},
            {},
            {"/own/absent", "/other/absent", "/third/absent"},
        ),
        (  # uv asks for both pages at once, and ends at the first that is missing: they are there
            {"index-url": "{}/own", "find-links": "{0}/links {0}/more"},
            {},
            {"/links", "/more", "/own/absent"},
        ),
        (
            {"index-url": "{}/own", "extra-index-url": "{}/other"},
            {"UV_INDEX_URL": "{}/uv", "UV_INDEX": ""},
            {"/uv/absent"},
        ),
    ],
)
def test_the_lock_comes_from_where_pip_is_told_to_find_packages_unless_uv_is_told_itself(
    conf, variables, wanted, index, checkout, tmp_path, monkeypatch, capfd
):
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("an environment of the user's own making, without uv")
    url, asked = index
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    lines = [f"{name} = {value}" for name, value in {"extra-index-url": "", "find-links": "", **conf}.items()]
    (tmp_path / "pip.conf").write_text("\n".join(["[global]", *lines]).replace("{0}", url).replace("{}", url))
    for name, value in {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "UV_NO_CACHE": "1", **variables}.items():
        monkeypatch.setenv(name, value.format(url))
    environment.LOCK.write_text(f"absent==1 --hash=sha256:{'0' * 64}\n")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    python.with_name("uv").symlink_to(uv)
    plain = environment._run
    monkeypatch.setattr(environment, "_run", lambda command, *more, way="", **_: way and plain(command, *more, way=way))
    with pytest.raises(SystemExit):
        environment._make(checkout / ".venv", python)
    assert {path.rstrip("/") for path in asked} == wanted
    assert "index of your own, UV_DEFAULT_INDEX=URL names it" in capfd.readouterr().err.splitlines()[-1]


def test_a_certificate_that_pip_is_told_of_is_uvs_too(monkeypatch):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_SYSTEM_CERTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CERT", "/a folder/own.pem")
    assert environment._as_pip_is_told(Path(sys.executable))["SSL_CERT_FILE"] == "/a folder/own.pem"


@pytest.mark.parametrize(("made_for", "is_made_anew"), [(b"x==0\n", True), (b"x==1\n", False), (None, False)])
def test_a_lock_that_changed_reaches_an_activated_environment_of_ours(made_for, is_made_anew, checkout, monkeypatch):
    monkeypatch.setattr(environment, "_WITNESSES", ("sys",))
    monkeypatch.setattr(sys, "prefix", str(checkout / ".venv"))
    if made_for is not None:
        (checkout / ".venv" / "locked").write_text(sha256(made_for).hexdigest())
    made = []
    monkeypatch.setattr(environment, "_make", lambda *given: made.append(given))
    with pytest.raises(InterruptedError) if is_made_anew else contextlib.nullcontext():
        environment.ensure()
    assert len(made) == is_made_anew


def test_a_machine_that_the_lock_has_no_wheels_for_is_told_in_one_line(checkout, monkeypatch, capsys):
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(SystemExit) as ended:
        environment.ensure()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: Linux on x86-64 is needed, this is Darwin arm64")
    assert said.count("\n") == 1 and not list((checkout / ".venv").iterdir())


def test_a_python_that_makes_no_environments_is_told_in_one_line_with_the_package(checkout, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # `ensurepip`, as on a plain Debian
    with pytest.raises(SystemExit) as ended:
        environment.ensure()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert f"apt install python3.{sys.version_info.minor}-venv" in said
    assert not list((checkout / ".venv").iterdir())


@pytest.mark.parametrize("command", ["pipeline", "mcdm", "tests", "tests.benchmarks", "tests.proofs"])
def test_every_command_of_a_python_without_packages_is_started_again_in_the_environment(command, tmp_path):
    for name in ("manifests", "mcdm", "pipeline", "stages", "tests", "requirements.txt"):
        (tmp_path / name).symlink_to(environment.ROOT / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / "locked").write_text(sha256((tmp_path / "requirements.txt").read_bytes()).hexdigest())
    bare = [sys.executable, "-S", "-m", command, "list", "--help"]  # -S: nothing that is installed is found
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"-S -m {command} list --help\n", "")


def test_a_machine_that_only_trains_is_given_nothing_that_training_does_not_want(checkout, monkeypatch):
    environment.ensure("json", "sqlite3")
    with pytest.raises(InterruptedError):
        monkeypatch.setattr(environment, "_make", lambda *given: None)
        environment.ensure("json", "no_such_package")
