"""Names of languages and their BCP-47 tags."""

import re

_TAG = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")

_CASED = {2: str.upper, 4: str.title}
"""Regions and scripts by their length: `pt-BR`, `zh-Hant`; what else follows a language is small."""

_BY_NAME = {
    "arabic": "ar", "bengali": "bn", "bulgarian": "bg", "cantonese": "yue", "catalan": "ca", "chinese": "zh",
    "croatian": "hr", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "finnish": "fi", "french": "fr",
    "german": "de", "greek": "el", "hebrew": "he", "hindi": "hi", "hungarian": "hu", "indonesian": "id",
    "italian": "it", "japanese": "ja", "korean": "ko", "malay": "ms", "mandarin": "zh", "norwegian": "no",
    "persian": "fa", "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru", "serbian": "sr",
    "slovak": "sk", "spanish": "es", "swedish": "sv", "tagalog": "tl", "tamil": "ta", "telugu": "te", "thai": "th",
    "turkish": "tr", "ukrainian": "uk", "urdu": "ur", "vietnamese": "vi",
}  # fmt: skip


UNSTATED = frozenset({"unknown", "auto", "none", "null", "other", "others", "n/a", "?", "-"})
"""What lists say, in any case, where they mean that they do not know the language."""


class UnknownLanguageError(ValueError):
    """Neither a BCP-47 tag nor an English name that we know."""


def language_tag(text: str) -> str:
    """The BCP-47 tag of a tag or an English name, in its usual case: `PT_br` gives `pt-BR`, `German` gives `de`.

    Raises `UnknownLanguageError`. A tag is checked for its form only: whisper and the world know more than any list.
    """
    cleaned = text.strip().replace("_", "-")
    if cleaned.lower() in _BY_NAME:
        return _BY_NAME[cleaned.lower()]
    if not _TAG.fullmatch(cleaned):
        raise UnknownLanguageError(
            f"{text!r} is neither a BCP-47 tag nor the English name of a language we know: say de, pt-BR or German"
        )
    primary, *rest = cleaned.split("-")
    return "-".join([primary.lower(), *(_CASED.get(len(part), str.lower)(part) for part in rest)])


def primary(tag: str) -> str:
    """The language of a tag without its region: `pt-BR` gives `pt`."""
    return tag.partition("-")[0].lower()
