"""Where a clip comes from: whose video, by what the site says and the manifest states, and from when in there."""

from dataclasses import dataclass

from manifests.records import Piece, Source, Video
from manifests.urls import public

_OWN_FILES = frozenset({"file", "generic"})
"""Extractors of files that no page describes. Of these the manifest knows more, corrections made since included."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the results say of a video; "" where nobody says."""

    url: str
    title: str
    channel: str  # who published it: the site's own address of the uploader if known, else a name
    uploader: str
    licence: str


def origin_of(video: Video, source: Source | None) -> Origin:
    """What the site states, else what the manifest states; of a file without a page the other way round."""
    own = source is None or source.extractor in _OWN_FILES

    def better(of_site: str, of_manifest: str) -> str:
        return (of_manifest or of_site) if own else (of_site or of_manifest)

    uploader = source.uploader if source else ""
    return Origin(
        url=public(better(source.page_url if source else "", video.url)),
        title=better(source.title if source else "", video.title),
        channel=better((source.uploader_url if source else "") or uploader, video.channel),
        uploader=better(uploader, video.channel),
        licence=better(source.licence if source else "", video.licence),
    )


def span_s(piece: Piece, source: Source | None) -> tuple[float, float]:
    """Start and end in what lies at the video's URL, of which the stored file may be a part; seconds."""
    begin_s = source.start_s if source else 0.0
    return round(begin_s + piece.start_s, 6), round(begin_s + piece.end_s, 6)
