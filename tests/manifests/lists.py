"""Lists of videos to be read."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from manifests.records import Video


def to_json_lines(videos: Iterable[Video]) -> bytes:
    """The list as JSON lines, without fields that say nothing."""
    rows = ({name: value for name, value in asdict(video).items() if value not in (None, "")} for video in videos)
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
