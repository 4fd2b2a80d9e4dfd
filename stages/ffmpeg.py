"""Runs of an ffmpeg program, each with a time limit: a system ffmpeg, else the one in the imageio-ffmpeg wheel."""

import errno
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

COPYABLE = {
    *("h264", "hevc", "av1", "libdav1d", "vp9"),
    *("aac", "mp3", "mp3float", "opus", "libopus", "ac3", "eac3", "flac", "alac"),
}
"""Codecs, or PyAV's decoders of them, that an mp4 file holds with an edit list and that players and PyAV read back."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,nut,rm,wtv,dv,gif,mp3,aac,wav,flac,w64,aiff"
)
"""Demuxers allowed: containers of video, and of sound alone so that those get their own answer. Left out on purpose are
the formats that are lists of other files (HLS, DASH, concat): a downloaded text must not make us open what it names."""

BWDIF = "mode=send_frame:deint=interlaced"
"""Settings of libavfilter's deinterlacer: one picture for each, those that are not interlaced as they are."""

LONGEST_PX, MOST_PX = 8192, 8192 * 4320
"""No side of a coded picture is longer, and none has more pixels: DCI's 8K; sites serve more for VR alone. A decoder of
H.264 holds up to 17, 0.9 GB, and a file of a few hundred kB may claim the square of 16,000 px: 6.5 GB."""

_MARGIN_S = 120.0
_EVEN = r"pad=ceil(iw/max(2\,hsub))*max(2\,hsub):ceil(ih/max(2\,vsub))*max(2\,vsub)"  # what is there stays in place
# The clock is that of transport streams: ffmpeg's own choice, 1/rate, moves pictures of a variable rate by up to 50 ms.
_CODING = ("-c:v", "libx264", "-crf", "16", "-preset", "veryfast", "-enc_time_base:v", "1:90000")
_BT709 = ["scale=out_color_matrix=bt709", "setparams=colorspace=bt709"]
_LONGEST_GROUP_S = 20.0  # between two keyframes of a transport stream; broadcasts have 1 s at most, web streams 10
_RUN_UP_S = 1.0  # decoded before any other part: pictures that ffmpeg has too late are put back before it cuts

EARLIER_S = 0.2
"""ffmpeg looks for a keyframe so much before the wanted time, or 3/23 s, where pictures are reordered. In FLV and AVI,
where that lies before the beginning, it says that it cannot, and reads on from anywhere."""


class CutError(Exception):
    """ffmpeg could not cut the part, or not in time."""


def ffmpeg_path() -> str:
    """The program; raises `RuntimeError` where neither the system nor the wheel has one for this platform."""
    import imageio_ffmpeg

    found: str = shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()
    return found


def bounded_ffmpeg(folder: Path, limit_s: float) -> Path:
    """Write a program `ffmpeg` into a folder that runs the real one and kills it after `limit_s` seconds.

    For libraries that run ffmpeg with no limit of their own (yt-dlp): ffmpeg is known to hang on bad input.
    """
    code = f"import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], timeout={limit_s}).returncode)"
    program = folder / "ffmpeg"
    command = shlex.join([sys.executable, "-c", code, ffmpeg_path()])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)
    return program


def cut(
    path: Path,
    out: Path,
    start_s: float,
    end_s: float,
    *,
    streams: tuple[int, int],
    copy: bool,
    late_s: float = 0.0,
    changing: tuple[int, int] | None = None,
    rgb: bool = False,
) -> None:
    """Write the part from `start_s` to `end_s` as mp4, with sound and picture in step. Raises `CutError`.

    Times count from the file's earliest stream (`stages.container.lead_s`); at 0 it is read from its beginning.
    `streams` are the indices of picture and sound. `start_s` must be the time of a picture
    (`stages.container.time_shown`): an edit list that begins inside of one is read as if it began with the next, and
    the sound would be late by what is left of it, up to a frame.

    With `copy` (of `COPYABLE` codecs) packets begin at the keyframe before `start_s`, and the file's edit list hides
    what lies before it, so time 0 of the part is `start_s` of the source. They end by decoding time: every picture
    before `end_s` is there, and a few after it, between which others are missing. Otherwise H.264 and AAC are made
    anew: for codecs that live in containers without edit lists (VP8, Vorbis, WMV), for AVI, whose frames carry no
    presentation times to shift, and for transport streams. Interlaced pictures are made whole then, since H.264 would
    weave their fields for good. Sides become even, as H.264 wants them, by a black line right and below
    (three, where colours are that coarse).

    `late_s`: how much too late ffmpeg has all pictures (`stages.clock.late_s`); not with `copy`.
    `changing`: of a transport stream, width and height of its first picture in square pixels. Those of another shape
    are put into its middle, as `stages.media.frames` has them; and as there is no index and ffmpeg finds the keyframe
    after a time, not the one before, it begins to decode earlier.
    `rgb`: whether pictures are coded in RGB, of which ffmpeg by itself makes BT.601 without saying so.
    """
    start_s = math.floor(start_s * 1e6) / 1e6  # ffmpeg takes microseconds, and rounded up would be the next picture
    back_s = 0.0 if copy else _LONGEST_GROUP_S if changing else _RUN_UP_S
    before_s = start_s - back_s if copy or start_s - back_s > EARLIER_S else 0.0
    command = [
        *(ffmpeg_path(), "-nostdin", "-v", "error", "-y", "-protocol_whitelist", "file"),
        *("-format_whitelist", FORMATS),
        *(["-ss", f"{before_s:.6f}"] if before_s else []),
        *("-to", f"{end_s + late_s:.6f}", "-max_pixels", str(MOST_PX), "-i", str(path)),
        # `-to` counts from the first picture found, wherever that is, and is lost where pictures change their size.
        *([] if copy else ["-ss", f"{start_s - before_s:.6f}", "-t", f"{end_s - start_s:.6f}"]),
        *("-map", f"0:{streams[0]}", "-map", f"0:{streams[1]}", "-sn", "-dn"),
        *(["-c", "copy"] if copy else ["-vf", ",".join([*_filters(changing, late_s), *_BT709 * rgb]), *_CODING]),
        *("-movflags", "+faststart", str(out)),
    ]
    try:
        done = subprocess.run(
            command, timeout=_MARGIN_S + 10 * (end_s - start_s), capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CutError(f"ffmpeg took longer than {error.timeout:.0f} s") from None
    if done.returncode != 0:
        if os.strerror(errno.ENOSPC) in done.stderr:  # not the fault of the file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))
        raise CutError(" ".join(done.stderr.split())[-300:])


def _filters(size: tuple[int, int] | None, late_s: float) -> list[str]:
    whole = f"bwdif={BWDIF}"
    if size is None:
        in_time = [f"setpts=round(PTS-{late_s:.6f}/TB)"] if late_s else []
        return [*in_time, whole, _EVEN]
    width, height = (side + side % 2 for side in size)
    return [
        whole,
        "scale=trunc(iw*sar/2+0.5)*2:ih,setsar=1",  # square pixels; nothing to do for most
        f"scale={width}:{height}:force_original_aspect_ratio=decrease:force_divisible_by=2",
        f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,setsar=1",
    ]
