"""What the columns of lists of videos are called, in lists that exist, and what a row states by them."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_NAMES = {
    # yt-dlp's own `url`, beside `webpage_url`, holds for hours; where a row has a clip's name too, the address counts
    "url": "webpage_url url video_url video_link link path file video video_path source filename file_name",
    "youtube": "youtube_id ytb_id yt_id ytid youtube_key youtubeid",
    "start_s": "start_s start start_sec start_time starttime start_timestamp start_seconds begin",
    "end_s": "end_s end end_sec end_time endtime end_timestamp end_seconds stop",
    "start_ms": "start_ms start_msec start_time_ms start_milliseconds",
    "end_ms": "end_ms end_msec end_time_ms end_milliseconds",
    "language": "language lang language_code locale",
    "title": "title video_title",
    "name": "name clip_id clip_name key",  # the last is that of our own table of clips
    "channel": "channel uploader channel_id",
    "licence": "licence license",
    "duration_s": "duration_s duration_sec duration_seconds",
}
"""What each field is called in lists that exist: our own first, then those of AVSpeech, CelebV, MultiTalk, TalkVid."""

FIELD = {name: field for field, names in _NAMES.items() for name in names.split()}
ADDRESSES = {name for name, field in FIELD.items() if field in ("url", "youtube")}
TIMES = ("start_s", "end_s", "duration_s", "start_ms", "end_ms")


def flattened(row: Mapping[str, Any]) -> dict[str, Any]:
    """Nested objects (`{"duration": {"start_sec": 1}}`, `{"info": {"Video Link": ...}}`) by their innermost names.

    What an entry states itself is not looked for within: beside an id, the `url` of a `thumbnail` is no video's.
    """
    nested = [value for value in row.values() if isinstance(value, dict)]
    flat = {name: value for name, value in row.items() if not isinstance(value, dict)}
    stated = {_meant(name) for name, value in flat.items() if _states(value)} if nested else set()
    for one in nested:
        flat = {name: value for name, value in flattened(one).items() if _meant(name) not in stated} | flat
    return flat


def fields_of(row: Mapping[str, Any], columns: dict[str, bool]) -> dict[str, Any]:
    """What a row states, by field; every column that states something is noted, with whether any row used it."""
    known: dict[str, Any] = {}
    names = {plain(name): name for name, value in row.items() if _states(value)}
    # In the order of the names above, so that a column `url` is preferred to a column `filename`.
    for spelling, field in FIELD.items():
        if spelling in names and field not in known:
            known[field] = row[names[spelling]]
            columns[names[spelling]] = True
    for name in names.values():
        columns.setdefault(name, False)
    return known


@lru_cache(1 << 10)  # lists of a million rows have the same few
def plain(name: str) -> str:
    """A column's name as the table of names has it: `Video Link`, `start-time` and `Start (s)` are spellings."""
    return re.sub(r"[\s()\[\]_-]+", "_", str(name).strip()).rstrip("_").lower()


def seconds(text: str, *, in_ms: bool = False) -> float:
    """What a text says in seconds, or `[hours:]minutes:seconds`; in milliseconds if it is said so. May be no time in a
    video. Raises `ValueError`."""
    total, parts = 0.0, [text.removesuffix("ms")] if in_ms else text.removesuffix("s").split(":")
    if len(parts) > 3:  # as timecodes have it: frames are no seconds
        raise ValueError(f"{text!r} is no time of three parts")
    for part in parts:
        if len(parts) > 1 and part.strip().startswith(("-", "+")):
            raise ValueError(f"a sign in {text!r}")
        total = total * 60 + float(part)
    return total / 1000 if in_ms else total


def _meant(name: str) -> str:
    """What a column states: all of `ADDRESSES` the same, one that we do not know its own name."""
    return "url" if plain(name) in ADDRESSES else FIELD.get(plain(name), name)


def _states(value: Any) -> bool:
    """Not so an empty field, nor the NaN by which pandas says the same."""
    return value is not None and bool(str(value).strip()) and not (isinstance(value, float) and math.isnan(value))
