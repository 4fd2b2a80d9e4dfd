"""The same run elsewhere: results in S3, and as a job on a Ray that was there before."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifests.store import Store
from tests.command import ROOT, pipeline, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def one_video(folder: Path) -> Path:
    """A manifest of one video of the corpus: enough to pass every stage."""
    corpus = ROOT / "manifests" / "sample" / "corpus"
    (folder / "list.csv").write_text(f"url,language,licence\n{corpus / 'en-1.mp4'},en,CC0-1.0\n")
    return folder / "list.csv"


def test_a_run_into_s3_leaves_what_a_run_onto_a_disk_leaves(bucket, tmp_path):
    manifest = one_video(tmp_path)
    for store in (f"{bucket}/a", str(tmp_path / "disk")):
        said = pipeline("run", "sample", "--manifest", manifest, "--store", store)
        assert said.code == 0, said.out + said.err
    there, here = Store(f"{bucket}/a"), Store(str(tmp_path / "disk"))
    shards = here.list("shards")
    assert shards == there.list("shards") and len(shards) >= 2
    assert all(there.get(path) == here.get(path) for path in shards if path.endswith(".tar"))
    assert [p for p in here.list("ledger") if "/tries/" not in p] == [
        p for p in there.list("ledger") if "/tries/" not in p
    ]
    again = pipeline("run", "sample", "--manifest", manifest, "--store", f"{bucket}/a")
    assert again.code == 0 and "nothing to do" in again.out
    assert pipeline("verify", "--store", f"{bucket}/a").code == 0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(port: int) -> None:
    """Until something listens there."""
    for _ in range(600):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"nothing listens on port {port}")


def test_a_machine_too_busy_for_ray_is_told_so_in_one_line(tmp_path):
    """Ray is real, but never hears of its own node."""
    lines = (
        "import sys, ray._private.services as services",
        "def unheard(*_): raise RuntimeError('no node')",
        "services.get_node = unheard",
        "from pipeline.cli import main",
        f"sys.exit(main(['run', '--langs', 'pl', '--store', {str(tmp_path / 'out')!r}]))",
    )
    said = run("-c", "\n".join(lines))
    assert said.code == 2 and "Traceback" not in said.err
    assert said.err.splitlines()[-1].startswith("error: Ray did not start, 3 times")


# Another Ray of this machine (here that of the other tests) holds the port that a head's agent asks for by default, and
# an agent without its port takes no jobs, for ever: a second head on one machine wants a port of its own.
@pytest.mark.usefixtures("ray_here")
def test_ray_job_submit_runs_the_pipeline_on_a_head_that_was_there_before(tmp_path):
    ray, dashboard = Path(sys.executable).parent / "ray", free_port()
    inside = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
    inside.pop("RAY_ADDRESS", None)

    def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ray, *map(str, words)], env=inside, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600
        )

    manifest, store = one_video(tmp_path), tmp_path / "out"
    code = tmp_path / "code"  # what a user has: the code alone, without an environment or results
    for package in ("manifests", "pipeline", "stages"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__", "corpus"))
    ports = ("--port", str(free_port()), "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard))
    ports += ("--dashboard-agent-listen-port", str(free_port()))
    # --block and a group of its own: `ray stop` would also end the Ray of the other tests.
    start = [ray, "start", "--head", "--block", *ports, "--num-cpus", "2", "--object-store-memory", "200000000"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    head = subprocess.Popen(list(map(str, start)), env=inside, cwd=ROOT, **quiet)
    try:
        wait_for(dashboard)
        address = ("--address", f"http://127.0.0.1:{dashboard}")
        command = ("python", "-m", "pipeline", "run", "sample", "--manifest", manifest, "--store", store)
        for _ in range(60):  # the dashboard answers before the agent that starts jobs is there
            done = call("job", "submit", *address, "--working-dir", code, "--", *command)
            if "No available agent" not in done.stdout + done.stderr:
                break
            time.sleep(2)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "clips in" in done.stdout and json.loads((store / "job.json").read_text())["recipe"] == "sample"
        # who names no Ray gets one of their own, though a head runs on this machine
        said = pipeline("run", "sample", "--manifest", manifest, "--store", tmp_path / "own", "--cpus", "2")
        assert said.code == 0, said.out + said.err
    finally:
        head.terminate()
        head.wait(60)
