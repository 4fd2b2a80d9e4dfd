"""Watch a source once: scenes, and the faces in them, frame by frame."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from manifests.records import RATE_HZ, Seen, Source, Track
from pipeline.bench import Bench
from pipeline.stage import RUNTIME, Facts, Rejection, Stage, Work
from stages.cuda import onnx_errors
from stages.cuts import Cuts
from stages.faces import Detector, Faces, FaceWatcher, Seeing
from stages.glance import Glance
from stages.pose import angles
from stages.quality import LOOKS, Quality, measures
from stages.tracks import Linked, Linking, link
from stages.voice import Listener, Voice

_BATCH_FRAMES = 64


_COUNTS = {
    "faces": ("every", "det_size_px", "per_sheet"),
    "cuts": ("height_px", "window_frames"),
    "quality": ("size_px", "motion_gap_frames"),
}
"""Of the parts of `Watch`, what none of makes no sense."""


@dataclass(frozen=True, kw_only=True)
class Watch(Stage[Seen]):
    """Source to scenes and face tracks, in one full decode at a small size that feeds all observers.

    Before it, cheap looks at what makes it useless: no voice (`stages.voice`), no face in the key frames
    (`stages.glance`). Where neither is sure, what follows is the same as without them.

    Gives `Seen`, whose blob is an `.npz` with, for every track number t, arrays over its n consecutive frames on the
    25 fps grid of the source:

    - `t/frame` int32 (n,);
    - `t/box` float32 (n, 5): x0, y0, x1, y1 in source pixels, smoothed, and the score, 0 where the face was not found;
    - `t/lmk` float32 (n, 5, 2): eyes, nose tip, mouth corners in source pixels, smoothed;
    - `t/pose` float32 (n, 3): yaw, pitch, roll in degrees (`stages.pose`);
    - `t/sharpness`, `t/exposure`, `t/motion` float32 (n,): as `stages.quality` defines them, NaN where not looked;
      motion also in the first frames, and where more than 16 faces are seen and it was not this one's turn.

    Rejects: what `stages.media` cannot decode, by its reason; "silent", "no_speech"; "no_face"; "no_track" (faces, but
    none that stays).
    """

    name: ClassVar[str] = "watch"
    # 2: boxes of pictures that are 305 to 319 px high were up to 5 % off
    # 3: mirrored pictures stood on their head, pictures of AVI with B-frames took earlier times after a broken one;
    # pictures that no other is made from are no longer deblocked (motion and sharpness differ by 0.3 % at most)
    # 4: of more than 16 faces at a time not all have their motion measured in every look, nor make for closer looks
    version: ClassVar[int] = 4
    needs: ClassVar[tuple[type, ...]] = (Source,)
    gives: ClassVar[type] = Seen

    # 320 rows are what two 16:9 frames on one 640 px sheet show of a picture: nothing is scaled twice.
    look_px: int = 320
    voice: Voice = field(default=Voice(), metadata={"absent": Voice(min_s=0.0)})
    glance: Glance = field(default=Glance(), metadata={"absent": Glance(max_gap_s=0.0)})
    cuts: Cuts = field(default=Cuts())
    faces: Faces = field(default=Faces())
    quality: Quality = field(default=Quality())
    linking: Linking = field(default=Linking())
    threads: int = field(default=1, metadata=RUNTIME)  # of the decoder; 0: as many as there are cores

    def __post_init__(self) -> None:
        if self.look_px < 16 or self.threads < 0:
            raise ValueError("watch: look_px must be at least 16, and threads not negative")
        for part, names in _COUNTS.items():
            for name in names:
                if (value := getattr(getattr(self, part), name)) < 1:
                    raise ValueError(f"watch: {part}.{name} must be at least 1, not {value}")

    def models(self) -> tuple[str, ...]:
        return (self.faces.pack,)

    def weights(self) -> dict[str, str]:
        """The face pack's digest."""
        from stages import weights

        return {"faces_digest": weights.digest(self.faces.pack)}

    def open(self) -> Work[Seen]:
        """Load the detector and the network that hears voices."""
        import cv2

        cv2.setNumThreads(self.threads)
        detector, listener = self.faces.open(self.resources.gpus), self.voice.open()

        def watch(facts: Facts, bench: Bench) -> Seen | Rejection:
            with onnx_errors():
                return self._watch(detector, listener, facts[Source], bench)

        return watch

    def _watch(self, detector: Detector, listener: Listener, source: Source, bench: Bench) -> Seen | Rejection:
        from stages.media import MediaError, frames

        cuts, faces = self.cuts.watcher(), FaceWatcher(detector, self.quality)
        path, end_s, n_frames = bench.fetch(source.file), source.stop_s, 0
        try:
            useless = listener.missing(path, source.duration_s, end_s) or self.glance.faceless(
                path,
                source.duration_s,
                detector,
                short_side_px=self.look_px,
                sure=self.linking.min_score,
                end_s=end_s,
                threads=self.threads,
            )
            if useless is not None:
                return useless
            for batch in frames(
                path, end_s=end_s, short_side_px=self.look_px, batch=_BATCH_FRAMES, threads=self.threads, rough=True
            ):
                cuts.see(batch)
                faces.see(batch)
                n_frames = batch.first_frame + len(batch.images)
        except MediaError as error:
            return Rejection(error.reason, {"n_frames": n_frames})
        return self._seen(cuts.done(), faces.done(), n_frames, source, bench)

    def _seen(
        self, cuts: tuple[int, ...], seeing: Seeing, n_frames: int, source: Source, bench: Bench
    ) -> Seen | Rejection:
        found = seeing.found
        numbers: dict[str, float | str] = {"n_frames": len(found.looked), "best_score": round(seeing.best_score, 3)}
        sure = found.frame[found.box[:, 4] >= self.linking.min_score]
        if not len(sure):
            return Rejection("no_face", numbers)
        linked = link(found, cuts, n_frames, self.linking)
        if not linked:
            return Rejection("no_track", numbers | {"faces": len(sure)})
        arrays: dict[str, Any] = {}
        tracks = []
        for number, track in enumerate(linked):
            mine = _arrays(track, seeing)
            arrays |= {f"{number}/{name}": values for name, values in mine.items()}
            tracks.append(
                Track(
                    number=number,
                    scene=track.scene,
                    start_frame=track.start,
                    end_frame=track.end,
                    **measures(mine, width_px=source.video.width_px, height_px=source.video.height_px),
                )
            )
        file = bench.scratch / "tracks.npz"
        with file.open("wb") as f:
            np.savez_compressed(f, **arrays)
        return Seen(
            n_frames=n_frames,
            cuts=cuts,
            tracks=tuple(tracks),
            arrays=bench.keep(file, "tracks.npz"),
            faces_share=len(np.unique(sure)) / len(found.looked),
            decoded_s=n_frames / RATE_HZ,
        )


def _arrays(track: Linked, seeing: Seeing) -> dict[str, NDArray[Any]]:
    looks = np.full((len(track.box), len(LOOKS)), np.nan, np.float32)
    looks[seeing.found.frame[track.rows] - track.start] = seeing.measures[track.rows]
    return {
        "frame": np.arange(track.start, track.end, dtype=np.int32),
        "box": track.box,
        "lmk": track.lmk,
        "pose": angles(track.lmk),
        **{name: looks[:, i] for i, name in enumerate(LOOKS)},
    }
