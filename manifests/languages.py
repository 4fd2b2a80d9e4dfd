"""Where to look for wild video, language by language: `manifests/wild/*.toml`, and what `--langs` may say."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from manifests.table import ManifestError
from manifests.tags import UnknownLanguageError, language_tag

WILD = Path(__file__).parent / "wild"

Text = Annotated[str, msgspec.Meta(min_length=2)]
Url = Annotated[str, msgspec.Meta(pattern=r"^https?://")]


class Language(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where video in one language is looked for, how much of it, and under which licence."""

    tag: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]  # BCP-47
    name: Text  # in English
    own_name: Text  # in the language itself
    hours: Annotated[float, msgspec.Meta(gt=0)]  # wanted in the data set; the paper's hours of this language
    licence: Literal["cc", "any"] = "cc"  # what is searched for, and fetched of what was found
    queries: tuple[Text, ...] = ()  # search words, written in the language
    channels: tuple[Url, ...] = ()
    playlists: tuple[Url, ...] = ()  # and feeds
    urls: tuple[Url, ...] = ()  # single videos and pages
    files: tuple[str, ...] = ()  # paths or fsspec URLs of videos or folders
    id_lists: tuple[str, ...] = ()  # lists of videos that `manifests.table.read` reads
    source: str = ""  # the file this was read from: relative paths start there


def load(folder: Path = WILD) -> tuple[Language, ...]:
    """All languages of a folder, the one with the most hours first. Raises `ManifestError` with file and field."""
    found = [load_file(path) for path in sorted(folder.glob("*.toml"))]
    if not found:
        raise ManifestError(f"{folder}: no language files (*.toml)")
    for first, second in pairwise(sorted(found, key=attrgetter("tag"))):
        if first.tag == second.tag:
            raise ManifestError(f"{second.source}: field tag: {second.tag!r} is also in {first.source}")
    return tuple(sorted(found, key=lambda language: (-language.hours, language.tag)))


def load_file(path: Path) -> Language:
    """One language. Raises `ManifestError` with file and field."""
    try:
        language = msgspec.toml.decode(path.read_bytes(), type=Language)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a `ValidationError` names its field as `$.hours`
        raise ManifestError(f"{path}: {str(error).replace('`$.', '`')}") from None
    except RecursionError:
        raise ManifestError(f"{path}: nested too deeply") from None
    if not any(
        (language.queries, language.channels, language.playlists, language.urls, language.files, language.id_lists)
    ):
        raise ManifestError(
            f"{path}: field queries: nothing to look for (no queries, channels, playlists, urls or files)"
        )
    return msgspec.structs.replace(language, tag=language_tag(language.tag), source=str(path))


def languages(selection: str, available: Sequence[str], of: Callable[[str], str] = str) -> tuple[str, ...]:
    """The tags that `--langs` picks out of the available ones, in their order: a number (the first N) or `de,pl`.

    A tag without region or script picks all that are `of` the same language: by default, that are spelled like it.
    Raises `ValueError` with one line that says what is allowed.
    """
    allowed = f"a number from 1 to {len(available)}, or any of {','.join(available)}"
    text = selection.strip()
    if text.isdecimal():
        if not 1 <= int(text) <= len(available):
            raise ValueError(f"--langs {selection}: must be {allowed}")
        return tuple(available[: int(text)])
    try:
        wanted = [language_tag(part) for part in text.split(",")]
    except UnknownLanguageError:
        raise ValueError(f"--langs {selection}: must be {allowed}") from None

    def picks(tag: str, one: str) -> bool:
        return one == tag or ("-" not in tag and of(one) == of(tag))

    if unknown := [tag for tag in wanted if not any(picks(tag, one) for one in available)]:
        raise ValueError(f"--langs {selection}: no {', '.join(unknown)} here; must be {allowed}")
    return tuple(one for one in available if any(picks(tag, one) for tag in wanted))
