"""A source with hand-made tracks, to cut clips of."""

import wave
from pathlib import Path

import numpy as np

from manifests.records import AudioStream, Clips, Seen, Source, Track, Video, VideoStream
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Rejection
from stages.clip import CutClips
from stages.media import frames

WIDTH, HEIGHT = 640, 360


def track(number: int, start: int, end: int, face_px: float = 100.0) -> Track:
    return Track(
        number=number,
        scene=0,
        start_frame=start,
        end_frame=end,
        detected_share=1.0,
        face_px=face_px,
        face_share=0.3,
        score=0.9,
        yaw_deg=0.0,
        pitch_deg=0.0,
        roll_deg=0.0,
        yaw_p95_deg=0.0,
        sharpness=1.0,
        exposure=120.0,
        inside_share=1.0,
        motion=1.0,
    )


def still_box(x: float, y: float, side: float, n: int) -> np.ndarray:
    return np.tile(np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2, 0.9], np.float32), (n, 1))


class Scene:
    """A source in a store of its own, with hand-made tracks."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.store = Store(str(folder / "store"))
        self.video = Video(id="0123456789abcdef", url="x")
        self.folder = folder
        self.file = self.store.put_file(source, f"in/{source.name}")
        self.tracks: list[Track] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(
        self, box: np.ndarray, start: int, motion: np.ndarray | None = None, sharpness: np.ndarray | None = None
    ) -> "Scene":
        number, n = len(self.tracks), len(box)
        self.tracks.append(track(number, start, start + n, float(np.median(box[:, 2] - box[:, 0]))))
        centre = (box[:, :2] + box[:, 2:4]) / 2
        self.arrays |= {
            f"{number}/frame": np.arange(start, start + n, dtype=np.int32),
            f"{number}/box": box,
            f"{number}/lmk": np.repeat(centre[:, None], 5, axis=1).astype(np.float32),
            f"{number}/pose": np.zeros((n, 3), np.float32),
            f"{number}/motion": np.full(n, np.nan, np.float32) if motion is None else motion,
            f"{number}/sharpness": np.full(n, np.nan, np.float32) if sharpness is None else sharpness,
            f"{number}/exposure": np.full(n, np.nan, np.float32),
        }
        return self

    def cut(self, width: int = WIDTH, height: int = HEIGHT, **options) -> Clips | Rejection:
        np.savez(self.folder / "seen.npz", **self.arrays)
        seen = Seen(
            n_frames=max((t.end_frame for t in self.tracks), default=0),
            cuts=(),
            tracks=tuple(self.tracks),
            arrays=self.store.put_file(self.folder / "seen.npz", "in/seen.npz"),
            faces_share=1.0,
            decoded_s=0.0,
        )
        source = Source(
            file=self.file,
            duration_s=1.0,
            video=VideoStream(width_px=width, height_px=height, rate_hz=25.0, codec="h264"),
            audio=AudioStream(rate_hz=48_000, channels=2, codec="aac"),
        )
        work = CutClips(**{"size_px": 128, **options}).open()
        with Bench(self.store, "clip-test", self.video.id) as bench:
            return work(Facts([self.video, source, seen]), bench)

    def path(self, ref) -> Path:
        return self.store.get_file(ref.path, self.folder)

    def pictures(self, clip) -> np.ndarray:
        return np.concatenate([f.images for f in frames(self.path(clip.video))])

    def sound(self, clip) -> np.ndarray:
        with wave.open(str(self.path(clip.audio))) as f:
            assert (f.getnchannels(), f.getsampwidth(), f.getframerate()) == (1, 2, 16_000)
            return np.frombuffer(f.readframes(f.getnframes()), np.int16)
