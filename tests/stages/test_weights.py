"""Weights are fetched once, whole, checked, and refused with the way out. A server on loopback plays the publishers."""

import dataclasses
import hashlib
import http.server
import io
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from filelock import FileLock

from stages import weights
from stages.download import DownloadError, download

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = weights.REGISTRY["tiny"].revision


@dataclass
class Publisher:
    """A loopback server: `files` by path, every request on record, bodies broken off or slowed as told."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    break_after: dict[str, int] = field(default_factory=dict)
    chunk_pause_s: float = 0.0


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    state = Publisher()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            state.requests.append((self.path, self.headers.get("Range")))
            data = state.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            start = 0
            if (span := self.headers.get("Range")) and self.headers.get("If-Range", etag) == etag:
                start = int(span.removeprefix("bytes=").rstrip("-").split("-")[0])
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("ETag", etag)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if not body:
                return
            stop = state.break_after.pop(self.path, len(data))
            for at in range(start, stop, 1 << 16):
                self.wfile.write(data[at : min(at + (1 << 16), stop)])
                time.sleep(state.chunk_pause_s)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFW_MODELS", str(tmp_path / "models"))


def register(monkeypatch, publisher: Publisher, *, sha256: str | None = DIGEST, unzip: bool = False) -> None:
    suffix = ".zip" if unzip else ".model"
    entry = weights.WebFile(
        url=f"{publisher.url}/net{suffix}", sha256=sha256, about="", size_mb=1, licence="free", unzip=unzip
    )
    monkeypatch.setitem(weights.REGISTRY, "net", entry)


def test_a_file_is_fetched_once_and_checked(publisher, monkeypatch):
    publisher.files["/net.model"] = CONTENT
    register(monkeypatch, publisher)
    assert weights.local("net") is None
    first, second = weights.path("net"), weights.path("net")
    assert first == second and first.read_bytes() == CONTENT
    assert len(publisher.requests) == 1
    assert weights.digest("net") == DIGEST[:12]
    assert "bytes that were fetched" in weights.check("net")
    first.write_bytes(CONTENT[:-1])
    with pytest.raises(weights.WeightsMissingError, match="delete it and fetch again"):
        weights.check("net")


def test_a_wrong_digest_leaves_nothing_behind(publisher, monkeypatch):
    publisher.files["/net.model"] = CONTENT + b"!"
    register(monkeypatch, publisher)
    with pytest.raises(weights.WeightsMissingError, match=f"not {DIGEST}"):
        weights.path("net")
    assert not [p for p in weights.folder().iterdir() if not p.name.endswith(".lock")]


def test_a_missing_file_is_refused_in_one_line_with_the_way_out(publisher, monkeypatch):
    register(monkeypatch, publisher)
    with pytest.raises(weights.WeightsMissingError) as caught:
        weights.path("net")
    message = str(caught.value)
    assert "\n" not in message and "404" in message
    assert f"{publisher.url}/net.model" in message and str(weights.folder()) in message
    assert "python -m pipeline models fetch net" in message
    assert len(publisher.requests) == 1, "a 404 is not tried again"


def test_a_process_that_fetches_for_hours_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setitem(weights.REGISTRY, "net", weights.WebFile(url="u", sha256=None, about="", size_mb=1, licence=""))
    monkeypatch.setattr(weights, "_LONGEST_FETCH_S", 0.2)
    weights.folder().mkdir(parents=True)
    with FileLock(weights.folder() / ".net.lock"), pytest.raises(weights.WeightsMissingError, match="and holds"):
        weights.path("net")


def test_a_body_that_breaks_off_is_continued_where_it_stopped(publisher, tmp_path):
    publisher.files["/f"] = CONTENT
    publisher.break_after["/f"] = 300_000
    target = tmp_path / "f"
    assert download(f"{publisher.url}/f", target, sha256=DIGEST, pauses_s=(0.0,)) == DIGEST
    assert [span for _, span in publisher.requests] == [None, "bytes=300000-"]
    assert target.read_bytes() == CONTENT and list(tmp_path.iterdir()) == [target]


def test_a_file_that_changed_meanwhile_is_fetched_anew(publisher, tmp_path):
    publisher.files["/f"] = CONTENT
    publisher.break_after["/f"] = 300_000
    with pytest.raises(DownloadError):
        download(f"{publisher.url}/f", tmp_path / "f", pauses_s=())
    publisher.files["/f"] = other = CONTENT[::-1]
    assert download(f"{publisher.url}/f", tmp_path / "f", pauses_s=()) == hashlib.sha256(other).hexdigest()


FETCH = """
import sys
from stages import weights
weights.REGISTRY["net"] = weights.WebFile(
    url=sys.argv[1], sha256=None, about="", size_mb=1, licence="")
weights.path("net")
"""


def test_a_killed_fetch_is_continued_by_the_next(publisher, monkeypatch):
    publisher.files["/net.model"] = CONTENT * 4
    publisher.chunk_pause_s = 0.02
    child = subprocess.Popen([sys.executable, "-c", FETCH, f"{publisher.url}/net.model"])
    part = weights.folder() / "net.model.part"
    while (not part.exists() or part.stat().st_size == 0) and child.poll() is None:
        time.sleep(0.01)
    assert part.exists(), "it was killed on the way"
    child.kill()
    child.wait()
    assert weights.folder().joinpath("net.model").exists() is False
    register(monkeypatch, publisher, sha256=None)
    publisher.chunk_pause_s = 0
    assert weights.path("net").read_bytes() == CONTENT * 4
    assert publisher.requests[-1][1] is not None, "the second fetch asks for the rest only"


def test_two_processes_at_once_fetch_once(publisher):
    publisher.files["/net.model"] = CONTENT
    publisher.chunk_pause_s = 0.02
    command = [sys.executable, "-c", FETCH, f"{publisher.url}/net.model"]
    children = [subprocess.Popen(command) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert len(publisher.requests) == 1
    assert (weights.folder() / "net.model").read_bytes() == CONTENT


def test_an_archive_becomes_a_flat_folder(publisher, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("pack/det.onnx", b"det")
        archive.writestr("rec.onnx", b"rec")
    publisher.files["/net.zip"] = packed.getvalue()
    register(monkeypatch, publisher, sha256=hashlib.sha256(packed.getvalue()).hexdigest(), unzip=True)
    place = weights.path("net")
    assert {p.name: p.read_bytes() for p in place.iterdir()} == {"det.onnx": b"det", "rec.onnx": b"rec"}
    assert weights.check("net")
    (place / "rec.onnx").unlink()
    with pytest.raises(weights.WeightsMissingError):
        weights.check("net")


def test_a_mirror_must_serve_the_published_bytes(publisher, monkeypatch):
    register(monkeypatch, publisher)
    publisher.files["/mirror"] = b"something else"
    with pytest.raises(weights.WeightsMissingError, match="SHA-256"):
        weights.fetch("net", url=f"{publisher.url}/mirror")
    publisher.files["/mirror"] = CONTENT
    assert weights.fetch("net", url=f"{publisher.url}/mirror").read_bytes() == CONTENT


def test_a_digest_that_is_given_must_be_the_published_one_and_that_of_what_is_here(publisher, monkeypatch):
    publisher.files["/net.model"] = CONTENT
    register(monkeypatch, publisher)
    with pytest.raises(weights.WeightsMissingError, match=f"published is {DIGEST}, not {'0' * 64}"):
        weights.fetch("net", sha256="0" * 64)
    assert weights.local("net") is None
    place = weights.fetch("net", sha256=DIGEST.upper())
    register(monkeypatch, publisher, sha256=None)
    assert weights.fetch("net", sha256=DIGEST) == place
    with pytest.raises(weights.WeightsMissingError, match=f"SHA-256 of {place} is not {'0' * 64}"):
        weights.fetch("net", sha256="0" * 64)


@pytest.mark.parametrize("option", [{"url": "http://x.invalid/y"}, {"sha256": DIGEST}])
def test_what_comes_with_the_package_takes_no_address_and_no_digest(option):
    with pytest.raises(weights.WeightsMissingError, match="sample/faces is not fetched"):
        weights.fetch("sample/faces", **option)


@pytest.mark.parametrize("below", ["", "models"])
def test_a_file_in_place_of_the_folder_of_weights_is_told_in_one_line(below, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TFW_MODELS", str(tmp_path / "file" / below))
    with pytest.raises(weights.WeightsMissingError, match="is no folder"):
        weights.path("syncnet_v2")


HUB_FETCH = """
import sys
from stages import weights
exec(sys.argv[1])
try:
    print(weights.path("tiny"))
    print(weights.path("tiny"))
    print(weights.check("tiny"))
except weights.WeightsMissingError as error:
    print(error)
"""


def hub(publisher: Publisher, files: dict[str, bytes]) -> None:
    """The three addresses of the hub's protocol that a snapshot needs."""
    entry = weights.REGISTRY["tiny"]
    assert isinstance(entry, weights.HubModel)
    info = {"id": entry.repository, "sha": entry.revision, "siblings": [{"rfilename": name} for name in files]}
    publisher.files[f"/api/models/{entry.repository}/revision/{entry.revision}"] = json.dumps(info).encode()
    for name, data in files.items():
        publisher.files[f"/{entry.repository}/resolve/{entry.revision}/{name}"] = data


def ask_hub(publisher: Publisher, before: str = "") -> list[str]:
    import os

    environment = {**os.environ, "HF_ENDPOINT": publisher.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run([sys.executable, "-c", HUB_FETCH, before], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_hub_model_is_fetched_once_without_what_is_not_needed(publisher):
    names = ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt", "README.md")
    hub(publisher, {name: name.encode() * 1000 for name in names})
    first, second, checked = ask_hub(publisher)
    assert first == second
    assert sorted(p.name for p in weights.Path(first).iterdir()) == sorted(set(names) - {"README.md"})
    assert "4 large files have the SHA-256 that the hub published" in checked
    asked = len(publisher.requests)
    assert ask_hub(publisher)[0] == first and len(publisher.requests) == asked


def test_what_a_broken_fetch_has_left_is_not_taken_for_the_whole_while_the_hub_is_away(publisher):
    hub(publisher, {name: name.encode() * 1000 for name in ("config.json", "model.bin", "tokenizer.json")})
    url, (model,) = publisher.url, [path for path in publisher.files if path.endswith("model.bin")]
    held = publisher.files.pop(model)
    assert "could not be fetched" in ask_hub(publisher)[0]
    answers_once = "import huggingface_hub as h, functools\n"
    answers_once += "h.snapshot_download = functools.partial(h.snapshot_download, local_files_only=True)"
    assert "could not be fetched (no model.bin)" in ask_hub(publisher, answers_once)[0]
    publisher.url = "http://127.0.0.1:1"
    assert "could not be fetched" in ask_hub(publisher)[0]
    publisher.url, publisher.files[model] = url, held
    assert (weights.Path(ask_hub(publisher)[0]) / "model.bin").read_bytes() == held


def test_a_hub_model_without_a_fixed_commit_is_what_lay_there_and_its_digest_is_its_name(publisher, monkeypatch):
    names = ("config.json", "pytorch_model.bin", "vocab.json", "tokenizer_config.json", "model.safetensors")
    monkeypatch.setitem(weights.REGISTRY, "tiny", dataclasses.replace(weights.REGISTRY["align-ru"], revision=COMMIT))
    hub(publisher, {name: name.encode() * 1000 for name in names})
    monkeypatch.setitem(weights.REGISTRY, "tiny", weights.REGISTRY["align-ru"])
    info = f"/api/models/{weights.REGISTRY['tiny'].repository}/revision/"
    publisher.files[f"{info}main"] = publisher.files[f"{info}{COMMIT}"]
    before = weights.digest("tiny")
    first, second, _ = ask_hub(publisher, 'weights.REGISTRY["tiny"] = weights.REGISTRY["align-ru"]')
    assert first == second and weights.Path(first).name == COMMIT
    assert sorted(p.name for p in weights.Path(first).iterdir()) == sorted(set(names) - {"model.safetensors"})
    assert weights.local("tiny") == weights.Path(first)
    assert weights.digest("tiny") == before != weights.digest("align-ar")


@pytest.mark.parametrize("note", ["", ".", "models/hub"])
def test_a_note_of_a_snapshot_that_a_full_disk_broke_off_is_none(note, tmp_path, monkeypatch):
    (tmp_path / "models" / "hub").mkdir(parents=True)
    (tmp_path / "models" / ".align-ru.snapshot").write_text(note)
    monkeypatch.chdir(tmp_path)
    assert not weights.REGISTRY["align-ru"].pinned and weights.local("align-ru") is None
    (tmp_path / "models" / ".tiny.snapshot").write_text(str(tmp_path / "models" / "hub"))
    assert weights.local("tiny") is None, "a folder of another commit than the one that is fixed"


def test_of_a_folder_put_there_by_hand_nothing_is_said_to_be_compared():
    (weights.folder() / "tiny").mkdir(parents=True)
    (weights.folder() / "tiny" / "model.bin").write_bytes(CONTENT)
    assert "no digest is published to compare with" in weights.check("tiny")


def test_a_record_of_digests_that_a_full_disk_broke_off_is_none(publisher, monkeypatch):
    publisher.files["/net.model"] = CONTENT
    register(monkeypatch, publisher)
    weights.path("net")
    (weights.folder() / ".net.json").write_text("")
    assert "has the published SHA-256" in weights.check("net")


def test_a_note_that_does_not_fit_on_the_disk_leaves_the_one_before(publisher, monkeypatch):
    publisher.files["/net.model"] = CONTENT
    register(monkeypatch, publisher)
    place, write = weights.path("net"), weights.Path.write_text
    before = (weights.folder() / ".net.json").read_text()
    place.unlink()

    def full(self, text):
        if self.name.startswith(".net.json"):
            write(self, "")
            raise OSError(28, "No space left on device", str(self))
        write(self, text)

    monkeypatch.setattr(weights.Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        weights.path("net")
    assert (weights.folder() / ".net.json").read_text() == before


def test_a_hub_that_does_not_have_it_is_refused_in_one_line(publisher):
    (line,) = ask_hub(publisher)
    assert "weights 'tiny'" in line and "models fetch tiny" in line


def test_own_paths_are_weights_too_and_their_digest_follows_the_bytes(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "a.onnx").write_bytes(b"one")
    before = weights.digest(str(folder))
    assert weights.path(str(folder)) == folder and weights.digest(str(folder)) == before
    (folder / "a.onnx").write_bytes(b"two")  # as long, and written at another time
    weights.os.utime(folder / "a.onnx", (0, 0))
    assert weights.digest(str(folder)) != before
    assert weights.check(str(folder))


@pytest.mark.parametrize("note", [".git/index", ".cache/huggingface/download/model.bin.metadata", ".DS_Store"])
def test_what_tools_keep_hidden_beside_weights_makes_no_others_of_them(note, tmp_path):
    folder = tmp_path / ".cache" / "own"  # hidden itself, as a home's cache is
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"one")
    before = weights.digest(str(folder))
    (folder / note).parent.mkdir(parents=True, exist_ok=True)
    (folder / note).write_text("1712656091.123")
    assert weights.digest(str(folder)) == before
    (folder / "model.bin").write_bytes(b"three")
    assert weights.digest(str(folder)) != before


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(weights.WeightsMissingError, match=r"no weights named 'nope'.*syncnet_v2"):
        weights.path("nope")
    assert issubclass(weights.WeightsMissingError, ValueError)


def test_the_listing_names_licence_size_and_state():
    lines = {line.name: line for line in weights.listing()}
    assert lines["syncnet_v2"].state == "not fetched" and "CC BY" in lines["syncnet_v2"].licence
    assert lines["large-v3"].size_mb > 3000 and all(line.licence for line in lines.values())
