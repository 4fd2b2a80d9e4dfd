"""Small pictures of clips, for reports and contact sheets."""

import io
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.records import RATE_HZ, Clip
from manifests.scratch import prefix
from manifests.store import Store

Image: TypeAlias = NDArray[np.uint8]

MOMENTS = (0.1, 0.5, 0.9)  # of the clip


def thumbnails(store: Store, clip: Clip, *, size_px: int, at: Sequence[float] = MOMENTS) -> list[Image]:
    """RGB pictures (size_px, size_px, 3) of a clip at some shares of its length.

    Each is sought from the key frame before it, so a 30 s clip costs no more than a short one. A clip that is gone or
    cannot be decoded gives none.
    """
    import av

    with tempfile.TemporaryDirectory(prefix=prefix("pictures")) as scratch:
        try:
            file = store.get_file(clip.video.path, Path(scratch))
            with av.open(str(file)) as source:
                return [_picture(source, share * (clip.n_frames - 1) / RATE_HZ, size_px) for share in at]
        except (FileNotFoundError, av.FFmpegError, EOFError):
            return []


def _picture(source: Any, time_s: float, size_px: int) -> Image:
    stream = source.streams.video[0]
    source.seek(int(time_s / stream.time_base), stream=stream)
    frame = None
    for frame in source.decode(stream):
        if frame.time is not None and frame.time >= time_s - 0.5 / RATE_HZ:
            break
    if frame is None:
        raise EOFError(f"no frame at {time_s:.2f} s")
    return _square(frame, size_px)


def _square(frame: Any, size_px: int) -> Image:
    small = frame.reformat(width=size_px, height=size_px, format="rgb24", interpolation="AREA", threads=1)
    picture: Image = small.to_ndarray()
    return picture


def jpeg(picture: Image) -> bytes:
    """A picture (h, w, 3), RGB, as JPEG."""
    from PIL import Image as Picture

    buffer = io.BytesIO()
    Picture.fromarray(picture).save(buffer, "JPEG", quality=72)
    return buffer.getvalue()


def contact_sheet(
    store: Store, clips: Iterable[Clip], *, size_px: int = 128, columns: int = 4, frames: int = 3
) -> bytes:
    """A PNG of clips, row by row in the order given, `frames` moments of each side by side, its key below them."""
    from PIL import Image as Picture
    from PIL import ImageDraw

    at = [(n + 0.5) / frames for n in range(frames)]
    cells = [(clip.key, thumbnails(store, clip, size_px=size_px, at=at)) for clip in clips]
    width, height, gap = frames * size_px, size_px + 14, 6
    rows = -(-len(cells) // columns) or 1
    sheet = Picture.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for n, (key, pictures) in enumerate(cells):
        left, top = gap + n % columns * (width + gap), gap + n // columns * (height + gap)
        for place, picture in enumerate(pictures):
            sheet.paste(Picture.fromarray(picture), (left + place * size_px, top))
        if not pictures:
            draw.rectangle((left, top, left + width - 1, top + size_px - 1), outline="grey")
        draw.text((left, top + size_px), key, fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
