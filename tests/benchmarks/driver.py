"""What very many videos cost the driver: two stages that only sleep, on Ray, wave after wave."""

import threading
from pathlib import Path

from manifests.records import Video
from manifests.store import Store
from pipeline.cluster import WAVE, Cluster, run_on_ray
from pipeline.stage import Resources, keys
from tests.benchmarks import toy
from tests.benchmarks.counts import passed_at, size_bytes
from tests.benchmarks.record import Findings
from tests.benchmarks.resident import held_mb, peak_mb
from tests.benchmarks.turns import Stopwatch

VIDEOS = 100_000
SLEEP_S = 0.001
LOOK_S = 5.0


def measure(folder: Path, repeats: int, videos: int = VIDEOS) -> Findings:
    """Seconds and memory as the videos go by; one turn."""
    half = Resources(cpus=0.5, workers=(1, 1))
    stages = (toy.First(sleep_s=SLEEP_S, resources=half), toy.Second(sleep_s=SLEEP_S, resources=half))
    store = Store(str(folder / "store"))
    ended = threading.Event()
    held: list[float] = []

    def look() -> None:
        while not ended.wait(LOOK_S):
            held.append(held_mb())

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    watch = Stopwatch()
    passed = run_on_ray(stages, toy.videos(videos), store, "a", cluster=Cluster(cpus=2))
    spent = watch.read()
    ended.set()
    looking.join()
    assert passed == videos, f"{passed} of {videos} videos passed"
    return Findings(
        numbers={
            f"{videos} videos x 2 stages: s with start": spent.wall_s,
            "cpu ms per video of the driver and of Ray's own processes": 1000 * spent.cpu_s / videos,
            f"ms per video, by waves of {WAVE}": _by_wave(store, keys(stages, Video)["second"]),
            "the driver's memory, MB: a tenth of the way, at the end, the most": [
                round(mb, 1) for mb in (held[len(held) // 10], held[-1], peak_mb())
            ],
            "bytes of ledger per video": size_bytes(folder / "store") / videos,
        },
        notes=(
            f"stages that sleep {SLEEP_S} s, one worker each, Ray on two cores, a local disk; by wave: the times of "
            "the files of the second stage's outcomes",
        ),
        once=True,
    )


def _by_wave(store: Store, key: str) -> list[float]:
    """Milliseconds between outcomes, wave by wave."""
    written = passed_at(store, key)
    waves = [part for at in range(0, len(written), WAVE) if len(part := written[at : at + WAVE]) > 1]
    return [round(1000 * (part[-1] - part[0]) / (len(part) - 1), 2) for part in waves]
