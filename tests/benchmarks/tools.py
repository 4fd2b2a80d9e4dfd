"""The public tools as a script would call them: ffmpeg, scenedetect, syncnet-python's own pipeline, whisperx."""

import argparse
import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np


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


class InsightFaceDetector:
    """An insightface detector behind S3FD's method, whose own weights cannot be had: full size, every frame."""

    def __init__(self, pack: str) -> None:
        from insightface.app import FaceAnalysis

        from stages import weights

        self._app = FaceAnalysis(name=str(weights.path(pack)), allowed_modules=["detection"])
        self._app.prepare(ctx_id=-1, det_size=(640, 640))

    def detect_faces(self, image: np.ndarray, *, conf_th: float, scales: list[float]) -> np.ndarray:
        """Boxes (n, 5) of an RGB picture. S3FD's 0.9 is SCRFD's 0.5; the network scales for itself."""
        found, _ = self._app.det_model.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return np.asarray(found, np.float64).reshape(-1, 5)


def classic_pipeline(state: Path, pack: str) -> Any:
    """syncnet-python's own pipeline, all of it but the weights of its detector; keeps tracks and readings."""
    from syncnet_python.syncnet_pipeline import SyncNetPipeline

    class Classic(SyncNetPipeline):  # type: ignore[misc]
        tracks: list[dict[str, Any]]
        readings: list[tuple[int, float, float]]

        def _load_s3fd(self, path: str) -> InsightFaceDetector:
            return InsightFaceDetector(path)

        def _load_syncnet(self, path: str) -> Any:
            instance = syncnet(Path(path))
            plain = instance.evaluate

            def evaluate_and_keep(opt: Any) -> tuple[int, float, float]:
                found: tuple[int, float, float] = plain(opt)
                self.readings.append(found)
                return found

            instance.evaluate = evaluate_and_keep
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

    return Classic(s3fd_weights=pack, syncnet_weights=str(state), device="cpu", min_face_size=32)


def empty(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
