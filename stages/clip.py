"""Tracks into clips: cut, cropped and encoded once, at the quality that ships. What is scored later is these bytes."""

import bisect
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np

from manifests.records import RATE_HZ, Clip, Clips, Piece, Seen, Source, Track, Video
from pipeline.bench import Bench
from pipeline.stage import RUNTIME, Facts, Rejection, Stage, Work
from stages.crop import filled_share, pieces, windows
from stages.encode import ClipWriter, write_wav
from stages.judge import Measured
from stages.media import MediaError, audio_array, pictures
from stages.packets import key_times_s
from stages.picture import Picture
from stages.quality import DETAIL_PX, LOOKS, effective_px, face_power, longest_still_s, measures
from stages.spare import BY_TRACK, Limits, policy_of, useless

_DETAIL_LOOKS = 4
"""Pictures of a clip whose face is looked at in full: the sharpest of them speaks for all, so few are enough."""

_JOIN_FRAMES = 50
"""Cuts less than this apart share one pass: to decode two idle seconds costs less than to open and seek again. So do
others where no key frame lies between: each would be decoded from before both, 80 cuts of one group 40 times over."""

_AT_ONCE = 16
"""Clips that one pass writes side by side, 19 MB each: of a call with 49 tiles 0.3 GB and not 0.9. The others wait for
another pass: to decode again costs a tenth of encoding 16 clips."""


@dataclass(frozen=True)
class _Cut:
    """One clip to be: a piece of a track and the window over it, frame by frame."""

    track: Track
    start_frame: int
    end_frame: int
    box: np.ndarray  # (n, 5) source pixels and score
    landmarks: np.ndarray  # (n, 5, 2) source pixels
    pose: np.ndarray  # (n, 3) degrees
    window: np.ndarray  # (n, 4) source pixels
    contiguous: bool
    others_in_view: tuple[int, ...]
    measures: dict[str, float]  # of `FaceMeasures`
    still_s: float
    filled_share: float


@dataclass(frozen=True, kw_only=True)
class CutClips(Stage[Clips]):
    """Cut every track that is long and large enough into clips of at most `max_s` seconds.

    A track longer than `max_s` is cut into equal pieces. Each second of source is decoded at most once for every 16
    faces it holds. What is good enough is for the policy to say: the limits here only spare encodes that no use could
    have, and `spare` those that a policy has no use for: such pieces are named, not cut, unless a useful one shares
    their time, for which they may be the one who speaks.
    `Rejection("no_candidate_clip")` where there is no piece of any kind.
    """

    name = "clip"
    # 2: others_in_view names tracks, it was a number; 3: fractions of pixels by Lanczos filters; 4: interlaced pictures
    # are made whole, and windows follow a picture that changes its size; 5: still_s and effective_face_px; 6: pieces
    # have measures of their own, where their tracks' were read, and filled_share; 7: colours of crops are exact
    version = 7
    needs = (Video, Source, Seen)
    gives = Clips

    size_px: int = 512
    margin: float = 1.6  # side of the window / longer side of the face's box: chin, hair and a little air
    max_s: float = 30.0
    min_s: float = 2.0  # a shorter track gives no clip
    min_face_px: float = 32.0  # a piece with a smaller face (sqrt of its box's area) gives no clip: nothing to be seen
    spare: Limits = field(default=(), metadata={"absent": ()})  # a piece that breaks one of these is not cut
    threads: int = field(default=1, metadata=RUNTIME)  # of the decoder

    def __post_init__(self) -> None:
        if self.size_px < 16 or self.size_px % 2:
            raise ValueError(f"size_px must be even and at least 16, not {self.size_px}")
        if not 0 < self.min_s <= self.max_s:
            raise ValueError(f"need 0 < min_s <= max_s, not {self.min_s} and {self.max_s}")
        if self.margin < 1:
            raise ValueError(f"margin must be at least 1, not {self.margin}")
        if self.threads < 0:
            raise ValueError(f"clip: threads must not be negative, not {self.threads}")
        policy_of(self.spare, BY_TRACK)

    def open(self) -> Work[Clips]:
        """Nothing heavy to load."""
        cv2.setNumThreads(1)  # OpenCV's default takes every core of the machine, for each worker
        return self._work

    def _work(self, facts: Facts, bench: Bench) -> Clips | Rejection:
        video, source, seen = facts[Video], facts[Source], facts[Seen]
        cuts = self._cuts(seen, bench, source)
        if not cuts:
            return Rejection(
                "no_candidate_clip",
                {
                    "tracks": float(len(seen.tracks)),
                    "longest_s": max((t.end_frame - t.start_frame for t in seen.tracks), default=0) / RATE_HZ,
                    "largest_face_px": max((t.face_px for t in seen.tracks), default=0.0),
                },
            )
        spared = self._spared(Measured(video, source, seen), cuts)
        left_out = {piece.number for piece in spared}
        clips: list[Clip] = []
        try:
            lanes = _lanes({number: cut for number, cut in enumerate(cuts) if number not in left_out})
            key_times = functools.cache(lambda: key_times_s(bench.fetch(source.file)))
            for run in itertools.chain.from_iterable(_runs(lane, key_times) for lane in lanes):
                path = bench.fetch(source.file)
                size = source.video.width_px, source.video.height_px
                for number, n_frames, detail_px in self._film(path, run, size, bench.scratch):
                    # each leaves scratch when done
                    clips.append(self._clip(video, number, cuts[number], n_frames, detail_px, bench))
        except MediaError as error:
            for clip in clips:
                bench.drop(clip.video, clip.audio, clip.arrays)
            return Rejection(error.reason, {"detail": error.detail})
        return Clips(items=tuple(sorted(clips, key=lambda clip: clip.number)), spared=spared)

    def _spared(self, known: Measured, cuts: list[_Cut]) -> tuple[Piece, ...]:
        """The pieces that are known to be of no use, not even as the one who speaks beside a useful one."""
        pieces = tuple(
            Piece(**_piece(known.video, number, cut, cut.end_frame - cut.start_frame))
            for number, cut in enumerate(cuts)
        )
        broken = useless(replace(known, clips=Clips(items=(), spared=pieces)), policy_of(self.spare, BY_TRACK))
        useful = [piece for piece in pieces if piece.key not in broken]
        return tuple(
            piece
            for piece in pieces
            if piece.key in broken
            and not any(one.start_s < piece.end_s and piece.start_s < one.end_s for one in useful)
        )

    def _cuts(self, seen: Seen, bench: Bench, source: Source) -> list[_Cut]:
        """All clips to be, in the order of their start."""
        cuts: list[_Cut] = []
        size = {"width_px": source.video.width_px, "height_px": source.video.height_px}
        with np.load(bench.fetch(seen.arrays)) as arrays:
            boxes = {t.number: (arrays[f"{t.number}/frame"], arrays[f"{t.number}/box"]) for t in seen.tracks}
            for track in seen.tracks:
                spans = pieces(
                    track.start_frame,
                    track.end_frame,
                    max_frames=round(self.max_s * RATE_HZ),
                    min_frames=round(self.min_s * RATE_HZ),
                )
                if not spans:
                    continue
                # Inflated once: of a take of two hours 11 MB, which its pieces share.
                whole = {name: arrays[f"{track.number}/{name}"] for name in ("lmk", "pose", *LOOKS)}
                frame, whole["box"] = boxes[track.number]
                others = {number: found for number, found in boxes.items() if number != track.number}
                for start, end in spans:
                    part = slice(*np.searchsorted(frame, (start, end)))
                    mine = {name: values[part] for name, values in whole.items()}
                    measured = measures(mine, **size)
                    if measured["face_px"] < self.min_face_px:
                        continue
                    window = windows(mine["box"][:, :4], margin=self.margin, **size)
                    cuts.append(
                        _Cut(
                            track=track,
                            start_frame=start,
                            end_frame=end,
                            box=mine["box"],
                            landmarks=mine["lmk"],
                            pose=mine["pose"],
                            window=window,
                            contiguous=bool(cuts) and cuts[-1].track is track and cuts[-1].end_frame == start,
                            others_in_view=_in_view(window, start, others),
                            measures=measured,
                            still_s=longest_still_s(mine["motion"], ~np.isnan(mine["sharpness"])),
                            filled_share=filled_share(window, **size),
                        )
                    )
        return sorted(cuts, key=lambda cut: (cut.start_frame, cut.track.number))

    def _film(self, path: Path, run: "_Run", size: tuple[int, int], folder: Path) -> Iterator[tuple[int, int, float]]:
        """Decode a run once and write every clip in it; gives each clip's number, frames and effective face size in
        source pixels as it is finished.

        `size`: width and height of the source pixels that windows are given in.
        """
        first, last = min(cut.start_frame for cut in run.values()), max(cut.end_frame for cut in run.values())
        powers: dict[int, list[np.ndarray]] = {number: [] for number in run}
        writers: dict[int, ClipWriter] = {}  # nothing else holds one: an encoder is megabytes, and a talk has hundreds
        try:
            for picture in pictures(path, start_s=first / RATE_HZ, end_s=last / RATE_HZ, threads=self.threads):
                frame = first + picture.number
                for number, cut in run.items():
                    if not cut.start_frame <= frame < cut.end_frame:
                        continue
                    if number not in writers:
                        writers[number] = ClipWriter(folder / f"{number:04d}.mp4", self.size_px)
                    window = picture.shape.fitted(cut.window[frame - cut.start_frame].tolist(), size)
                    writers[number].write(picture.crop(window, self.size_px))
                    if (frame - cut.start_frame) % -(-len(cut.box) // _DETAIL_LOOKS) == 0:
                        powers[number].append(_power(picture, cut.box[frame - cut.start_frame], size))
                    if frame + 1 == cut.end_frame:
                        yield _finish(writers.pop(number), path, number, cut, powers.pop(number), folder)
            for number in list(writers):  # the pictures ended early
                yield _finish(writers.pop(number), path, number, run[number], powers.pop(number), folder)
        finally:
            for writer in writers.values():
                writer.close()

    def _clip(self, video: Video, number: int, cut: _Cut, n_frames: int, detail_px: float, bench: Bench) -> Clip:
        name = f"{number:04d}"
        arrays = bench.scratch / f"{name}.npz"
        np.savez(arrays, allow_pickle=False, **_in_crop(cut, n_frames, self.size_px))
        return Clip(
            **_piece(video, number, cut, n_frames),
            size_px=self.size_px,
            effective_face_px=detail_px,
            video=bench.keep(bench.scratch / f"{name}.mp4", f"{name}.mp4"),
            audio=bench.keep(bench.scratch / f"{name}.wav", f"{name}.wav"),
            arrays=bench.keep(arrays, f"{name}.npz"),
        )


_Run: TypeAlias = dict[int, _Cut]
"""Clips by number that are cut in one pass."""


def _piece(video: Video, number: int, cut: _Cut, n_frames: int) -> dict[str, Any]:
    """What a piece and the clip that is cut from it are both known by."""
    return {
        "key": f"{video.id}-{number:04d}",
        "number": number,
        "track": cut.track.number,
        "start_s": cut.start_frame / RATE_HZ,
        "end_s": (cut.start_frame + n_frames) / RATE_HZ,
        "n_frames": n_frames,
        "contiguous_with_prev": cut.contiguous,
        "others_in_view": cut.others_in_view,
        "still_s": cut.still_s,
        "filled_share": cut.filled_share,
        **cut.measures,
    }


def _lanes(cuts: _Run) -> list[_Run]:
    """The clips, given in the order of their start, so parted that no more than `_AT_ONCE` overlap, in few lanes."""
    lanes: list[_Run] = []
    ends: list[list[int]] = []  # of each lane's clips that are not over yet
    for number, cut in cuts.items():
        ends = [[end for end in lane if end > cut.start_frame] for lane in ends]
        at = next((n for n, lane in enumerate(ends) if len(lane) < _AT_ONCE), len(ends))
        if at == len(ends):
            lanes.append({})
            ends.append([])
        lanes[at][number] = cut
        ends[at].append(cut.end_frame)
    return lanes


def _runs(cuts: _Run, key_times: Callable[[], Sequence[float]]) -> Iterator[_Run]:
    run: _Run = {}
    end = 0
    for number, cut in cuts.items():
        if run and cut.start_frame > end + _JOIN_FRAMES:
            keys = key_times()
            if bisect.bisect(keys, cut.start_frame / RATE_HZ) > bisect.bisect(keys, end / RATE_HZ):
                yield run
                run = {}
        run[number] = cut
        end = max(end, cut.end_frame)
    if run:
        yield run


def _finish(
    writer: ClipWriter, path: Path, number: int, cut: _Cut, powers: list[np.ndarray], folder: Path
) -> tuple[int, int, float]:
    start, end = cut.start_frame, cut.start_frame + writer.n_frames
    sound = audio_array(path, start_s=start / RATE_HZ, end_s=end / RATE_HZ)
    writer.finish(sound)
    write_wav(folder / f"{number:04d}.wav", sound)
    bands = min(len(power) for power in powers)  # a face that comes nearer has more of them
    mean = np.mean([power[:bands] for power in powers], axis=0)
    return number, writer.n_frames, effective_px(mean, float(np.median(_side_px(cut.box))))


def _side_px(box: np.ndarray) -> np.ndarray:
    """Square roots of the areas of boxes (..., 4 and more)."""
    return np.asarray(np.sqrt((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])))


def _power(picture: Picture, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Of the square of the face's own size about its middle, on whole pixels: scaling would take detail away."""
    x0, y0, x1, y1 = picture.shape.fitted(box[:4].tolist(), size)
    side = max(2 * round(float(_side_px(np.array([x0, y0, x1, y1]))) / 2), 2)
    left, top = (2 * round((low + high - side) / 4) for low, high in ((x0, x1), (y0, y1)))
    return face_power(picture.crop((left, top, left + side, top + side), min(side, DETAIL_PX)))


def _in_view(window: np.ndarray, start_frame: int, others: dict[int, tuple[np.ndarray, np.ndarray]]) -> tuple[int, ...]:
    """Which of the other tracks (frame numbers, boxes) have their centre inside the window at some time."""
    seen = []
    for number, (frame, box) in others.items():
        if frame[-1] < start_frame or frame[0] >= start_frame + len(window):  # of hundreds, nearly all
            continue
        part = slice(*np.searchsorted(frame, (start_frame, start_frame + len(window))))
        at = frame[part] - start_frame
        centre = (box[part, :2] + box[part, 2:4]) / 2
        if ((centre >= window[at, :2]) & (centre < window[at, 2:])).all(axis=1).any():
            seen.append(number)
    return tuple(sorted(seen))


def _in_crop(cut: _Cut, n_frames: int, size_px: int) -> dict[str, np.ndarray]:
    """The clip's arrays: boxes and landmarks in crop pixels, pose, and the windows themselves in source pixels."""
    window = cut.window[:n_frames]
    corner, zoom = window[:, :2], size_px / (window[:, 2] - window[:, 0])
    box = (cut.box[:n_frames, :4].reshape(-1, 2, 2) - corner[:, None]) * zoom[:, None, None]
    landmarks = (cut.landmarks[:n_frames] - corner[:, None]) * zoom[:, None, None]
    return {
        "box": np.concatenate([box.reshape(-1, 4), cut.box[:n_frames, 4:]], axis=1).astype(np.float32),
        "lmk": landmarks.astype(np.float32),
        "pose": cut.pose[:n_frames].astype(np.float32),
        "crop": window.astype(np.float32),
    }
