"""Word times by forced alignment: a wav2vec 2.0 per language, through whisperx, from local weights."""

import logging
import tempfile
import unicodedata
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ, Word
from manifests.scratch import prefix
from stages import weights
from stages.language import same, stated, subtag
from stages.registry import ALIGNERS, REGISTRY, WebFile
from stages.transcript import UNSPACED, Piece, is_heard, placed
from stages.whisper import quiet

log = logging.getLogger(__name__)

Samples = NDArray[np.float32]

_LEAST_KNOWN = 0.5  # of the letters of a text: whisperx guesses where the others are

_LETTER_S, _SYLLABLE_S = 0.3, 0.5
"""A letter and a Chinese character last no longer: whisperx has each last until the next begins, and so the last one
before a pause as long as that."""

_SENTENCE_ENDS = ".?!"

LEAST_GB = 2.6
"""What aligners may take on any machine: two large ones, of 1.3 GB."""


def alignable(tag: str | None) -> str | None:
    """The language whose aligner serves a tag: its own, or one that counts as the same; None where there is none."""
    language = subtag(stated(tag))
    return next((known for known in sorted(ALIGNERS) if same(known, language)), None)


class Aligners:
    """whisperx's forced aligners by language, loaded when first needed. As many stay as take no more than `most_gb`
    together: to load one again takes 1.4 s of a core and, where it does not lie in memory, the time to read it."""

    def __init__(self, device: str, most_gb: float = LEAST_GB) -> None:
        self._device, self._most_gb = device, most_gb
        self._loaded: OrderedDict[str, tuple[Any, dict[str, Any]]] = OrderedDict()

    def words(
        self, sound: Samples, *, start_s: float, end_s: float, text: str, language: str
    ) -> tuple[Word, ...] | None:
        """Words of what was said between two times of a sound, with their times.

        `language` is one that `alignable` gives. None where its aligner cannot place the text, or knows less than half
        of its letters (another script), and for digits, except in Chinese. Raises `WeightsMissingError`.
        """
        if language != "zh" and _has_digits(text):
            return None
        network, about = self._aligner(language)
        letters = [letter for letter in text.lower() if letter.isalpha()]
        if sum(letter in about["dictionary"] for letter in letters) < _LEAST_KNOWN * max(1, len(letters)):
            return None
        part = sound[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]
        said = _said(text, about["dictionary"])
        if not len(part) or not said:
            return None
        given = {"text": "".join(letter for _, letter in said), "start": 0.0, "end": len(part) / SAMPLE_RATE_HZ}
        if about["type"] == "huggingface":
            part = _levelled(part)
        from whisperx.alignment import align

        try:
            with quiet():
                _sentence_tables()
                found = align([given], network, about, part, self._device, return_char_alignments=True)
        except (ValueError, KeyError, IndexError) as error:
            log.warning("the %s aligner cannot place %r: %s", language, text[:60], error)
            return None
        timed = [one for segment in found["segments"] for one in segment["chars"] or ()]
        if len(timed) != len(said):
            log.warning("the %s aligner cannot place %r", language, text[:60])
            return None
        most_s = _SYLLABLE_S if language == "zh" else _LETTER_S
        pieces: list[Piece] = [(letter, None, None, None) for letter in text]
        for (place, _), one in zip(said, timed, strict=True):
            if "start" in one and "end" in one:
                from_s, to_s = start_s + one["start"], start_s + min(one["end"], one["start"] + most_s)
                pieces[place] = (text[place], from_s, to_s, one.get("score"))
        return placed(text, language, pieces)

    def _aligner(self, language: str) -> tuple[Any, dict[str, Any]]:
        if language not in self._loaded:
            while self._loaded and sum(map(_size_gb, (language, *self._loaded))) > self._most_gb:
                self._loaded.popitem(last=False)
            self._loaded[language] = _load(language, self._device)
        self._loaded.move_to_end(language)
        return self._loaded[language]


def _size_gb(language: str) -> float:
    return REGISTRY[ALIGNERS[language]].size_mb / 1e3


def _has_digits(text: str) -> bool:
    """Whether a text has numbers that are not spelled out. To an aligner each digit is one sound of any kind: "1984" is
    four of thirty, so that it ends early, and the words behind it are looked for in what is left of it (whisperX issue
    1298). A Chinese digit is about one syllable, and one sound to its aligner."""
    return any(unicodedata.category(letter)[0] == "N" for letter in text)


def _said(text: str, known: Mapping[str, int]) -> list[tuple[int, str]]:
    """What of a text an aligner is given, with its places: what is heard, other marks that it knows, and single spaces.

    Marks that it does not know would each be made out in what is said, and torchaudio's "-" is its blank. Those that
    end a sentence are never given: whisperx aligns sentence by sentence, and gives some letters of "What?!" to two.
    """
    found: list[tuple[int, str]] = []
    for place, letter in enumerate(text):
        small = letter.lower()[:1]  # of "\u0130" there are two
        if letter.isspace():
            if found and found[-1][1] != " ":
                found.append((place, " "))
        elif is_heard(letter) or (known.get(small, 0) and letter not in _SENTENCE_ENDS):
            found.append((place, small))
    return found[:-1] if found and found[-1][1] == " " else found


def _levelled(part: Samples) -> Samples:
    """With zero mean and unit variance, as the aligners that come in transformers' form learned it (`do_normalize`);
    whisperx gives them what there is, of which those with layer norms hear nothing when it is quiet."""
    return np.asarray((part - part.mean()) / np.sqrt(part.var() + 1e-7), np.float32)


def _load(language: str, device: str) -> tuple[Any, dict[str, Any]]:
    name = ALIGNERS[language]
    place, entry = weights.path(name), REGISTRY[name]
    with quiet(), tempfile.TemporaryDirectory(prefix=prefix("align")) as folder:
        from whisperx.alignment import load_align_model

        if isinstance(entry, WebFile):  # torchaudio looks for the name that the publisher gave
            (Path(folder) / Path(entry.url).name).symlink_to(place.resolve())
        try:
            network, about = load_align_model(
                language,
                "cpu",
                model_name=str(place) if place.is_dir() else None,
                model_dir=folder,
                model_cache_only=True,
            )
        except (ValueError, OSError, RuntimeError, EOFError, UnpicklingError) as error:
            # of a folder whisperx says that it is on no server, whatever is wrong with it
            why = str(error.__context__ or error).strip().split("\n")[0]
            raise weights.WeightsMissingError(f"{name}: {place} is no aligner that whisperx reads: {why}") from error
    # whisperx takes Thai for a language with spaces: one word a sentence
    return network.to(device), about | {"language": "zh" if language in UNSPACED else language}


@cache
def _sentence_tables() -> "tempfile.TemporaryDirectory[str]":
    """Spare whisperx the download of NLTK's `punkt_tab`: empty tables, which split at full stops, do for word times.
    They stay where NLTK finds them as long as this process."""
    import nltk  # type: ignore[import-untyped]
    from whisperx.utils import PUNKT_LANGUAGES

    folder = tempfile.TemporaryDirectory(prefix=prefix("nltk"))
    for language in {"english", *PUNKT_LANGUAGES.values()}:
        place = Path(folder.name) / "tokenizers" / "punkt_tab" / language
        place.mkdir(parents=True)
        for table in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
            (place / table).touch()
    nltk.data.path.insert(0, folder.name)
    return folder
