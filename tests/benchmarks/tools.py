"""The public tools as a script would call them: ffmpeg, scenedetect, syncnet-python's own pipeline, whisperx."""

import argparse
import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np

from tests.benchmarks.turns import Spent, Stopwatch


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg, the one on the PATH if there is one; raises `CalledProcessError`."""
    tool = shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()
    command = [tool, "-y", "-nostdin", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def scenedetect(path: Path, out: Path) -> None:
    """`scenedetect -i path detect-content list-scenes`."""
    tool = [sys.executable, "-m", "scenedetect", "-q", "-i", str(path), "-o", str(out)]
    subprocess.run([*tool, "detect-content", "list-scenes", "-q"], check=True, capture_output=True)


def whisperx(wavs: list[Path], model: Path, out: Path, threads: int) -> None:
    """`whisperx *.wav`, loaded once for all of them, without alignment."""
    options = ["--device", "cpu", "--compute_type", "float32", "--no_align", "--output_format", "json"]
    command = [sys.executable, "-m", "whisperx", *map(str, wavs), "--model", str(model), *options]
    command += ["--output_dir", str(out), "--threads", str(threads), "--vad_method", "pyannote"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def syncnet(state: Path) -> Any:
    """syncnet-python's `SyncNetInstance` with a state dict of the published layout, on the CPU."""
    import torch
    from syncnet_python.SyncNetInstance import SyncNetInstance
    from syncnet_python.SyncNetModel import S

    network = S(num_layers_in_fc_layers=1024)
    network.load_state_dict(torch.load(state, weights_only=True), strict=True)
    network.eval()
    return SyncNetInstance(network, device="cpu")


def evaluate(instance: Any, folder: Path) -> tuple[int, float, float]:
    """Offset (its sign: positive where the picture is late), confidence and distance of `*.jpg` and `audio.wav`."""
    import torch

    options = argparse.Namespace(tmp_dir=str(folder), batch_size=20, vshift=15)
    with torch.inference_mode(), contextlib.redirect_stdout(io.StringIO()):
        found: tuple[int, float, float] = instance.evaluate(options)
    return found


class Meter:
    """Calls, and what they took together."""

    def __init__(self) -> None:
        self.calls = 0
        self.spent = Spent()

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        watch = Stopwatch()
        yield
        self.spent += watch.read()
        self.calls += 1


S3FD_EVERY = 25
"""S3FD's time is taken on one of so many pictures: on two in a row of every twice as many. The second counts: there, as
in a script that sees every picture, the network was at work before."""


class TwoDetectors:
    """An insightface detector behind S3FD's method: full size, every picture. It finds what is found.

    S3FD's own weights cannot be had. What it costs does not depend on them: the published network, blind, looks at two
    pictures every two seconds beside it, on its own meter; with `blind` off, never.
    """

    def __init__(self, pack: str, *, blind: bool = True) -> None:
        from insightface.app import FaceAnalysis

        from stages import weights

        self._app = FaceAnalysis(name=str(weights.path(pack)), allowed_modules=["detection"])
        self._app.prepare(ctx_id=-1, det_size=(640, 640))
        self._s3fd = _blind_s3fd() if blind else None
        self.insightface, self.s3fd, self.s3fd_after_another = Meter(), Meter(), Meter()

    def detect_faces(self, image: np.ndarray, *, conf_th: float, scales: list[float]) -> np.ndarray:
        """Boxes (n, 5) of an RGB picture. S3FD's 0.9 is SCRFD's 0.5; the network scales for itself."""
        after = self.insightface.calls % (2 * S3FD_EVERY)
        if self._s3fd is not None and after < 2:
            with self.s3fd.timed(), self.s3fd_after_another.timed() if after else contextlib.nullcontext():
                assert not len(self._s3fd.detect_faces(image, conf_th=conf_th, scales=scales))
        with self.insightface.timed():
            found, _ = self._app.det_model.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return np.asarray(found, np.float64).reshape(-1, 5)

    def in_a_row(self) -> float | None:
        """S3FD's processor time for a picture after another, over that for the first of two; None where none was."""
        after, all_of = self.s3fd_after_another, self.s3fd
        if not after.calls or after.calls == all_of.calls:
            return None
        first = (all_of.spent.cpu_s - after.spent.cpu_s) / (all_of.calls - after.calls)
        return after.spent.cpu_s / after.calls / first


def _blind_s3fd() -> Any:
    """syncnet-python's S3FD with random weights, sure that nothing is a face."""
    import torch
    from syncnet_python.detectors.s3fd import S3FD
    from syncnet_python.detectors.s3fd.nets import S3FDNet

    torch.manual_seed(0)
    network = S3FDNet(device="cpu")
    with torch.no_grad():
        for layer in network.conf:
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[-1] = -20.0  # the last channel says "face", those before it "no face"
    return S3FD(net=network, device="cpu")


class _Unread:
    """In the place of a SyncNet: reads nothing."""

    def evaluate(self, opt: Any) -> tuple[int, float, float]:
        return 0, 0.0, 0.0


def classic_pipeline(state: Path | None, pack: str) -> Any:
    """syncnet-python's own pipeline, all of it but the weights of its detector; keeps tracks and readings. Without a
    state its crops are not scored, and S3FD takes no time."""
    from syncnet_python.syncnet_pipeline import SyncNetPipeline

    class Classic(SyncNetPipeline):  # type: ignore[misc]
        tracks: list[dict[str, Any]]
        readings: list[tuple[int, float, float]]

        def _load_s3fd(self, path: str) -> TwoDetectors:
            return TwoDetectors(path, blind=state is not None)

        def _load_syncnet(self, path: str) -> Any:
            instance = syncnet(Path(path)) if path else _Unread()
            plain = instance.evaluate

            def evaluate_and_keep(opt: Any) -> tuple[int, float, float]:
                found: tuple[int, float, float] = plain(opt)
                self.readings.append(found)
                return found

            instance.evaluate = evaluate_and_keep  # type: ignore[method-assign]
            return instance

        def _crop(self, track: dict[str, Any], *rest: Any) -> Any:
            self.tracks.append(track)
            return super()._crop(track, *rest)

        def scored(
            self, video: Path, sound: Path, folder: Path
        ) -> list[tuple[dict[str, Any], tuple[int, float, float]]]:
            """Tracks of a video with their readings; files lie in `folder`."""
            self.tracks, self.readings = [], []
            with contextlib.redirect_stdout(io.StringIO()):
                self.inference(str(video), str(sound), cache_dir=str(folder))
            return list(zip(self.tracks, self.readings, strict=True))

    return Classic(s3fd_weights=pack, syncnet_weights=str(state or ""), device="cpu", min_face_size=32)


def empty(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
