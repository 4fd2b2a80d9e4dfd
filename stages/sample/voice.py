"""Synthetic speech with exact times: espeak-ng, called as a library, giving samples, phonemes and words.

Only the makers of the sample world need it (Debian packages `espeak-ng` or `libespeak-ng1`); running the pipeline does
not. Times come from the synthesiser's own events (`espeak_EVENT`, espeak-ng's `speak_lib.h`), not from alignment.

A speaker is a number. It decides voice variant, pitch, pitch range and rate, and the ranges below never share a
variant, so a network that learned from one range has not heard the voices of another.
"""

import ctypes
import ctypes.util
import math
from _ctypes import dlclose
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ
from stages.sample.sentences import SPOKEN, WORDS

CORPUS_SPEAKERS = range(1000)
"""People of the committed corpus and of its harder copies."""
CHECK_SPEAKERS = range(1000, 2000)
"""Unheard voices that a maker of weights measures itself on; never trained on, never in the corpus."""
TRAINING_SPEAKERS = range(2000, 1_000_000)

_CORPUS_VARIANTS = ("m2", "f2", "m5", "f4", "m8")
_CHECK_VARIANTS = ("m6", "f5", "Andy", "linda")
_TRAINING_VARIANTS = (
    "", "m1", "m3", "m4", "m7", "f1", "f3", "Alex", "Alicia", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Gene2",
    "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "adam", "anika", "antonio",
    "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "gustave", "iven", "john", "marcelo",
    "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby",
    "steph", "travis", "victor", "zac",
)  # fmt: skip
"""Variants that sound like a person; those named after machines, whispers and creaks are left out."""

_ESPEAK_VOICES = {"en": "en-us", "zh": "cmn-latn-pinyin"}
"""espeak-ng's own names where they differ from the language tag."""

# speak_lib.h
_SYNCHRONOUS = 2  # samples go to the callback, and the call returns when all are made
_PHONEME_EVENTS, _PHONEME_IPA = 1, 2
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CHARS_UTF8, _PHONEME_INPUT, _ENDPAUSE = 1, 0x100, 0x1000
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7


@dataclass(frozen=True, kw_only=True)
class Phoneme:
    """One phoneme: its name in IPA as espeak-ng gives it (at most 8 bytes; "" in a pause) and its time in seconds."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Who speaks: an espeak-ng voice with variant ("de+f3"), pitch and pitch range (0..99), rate in words a minute."""

    name: str
    pitch: int
    pitch_range: int
    rate_wpm: int


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Spoken text: int16 samples (n,) at 16 kHz, phonemes that cover all of it, and words (text, start_s, end_s)."""

    samples: NDArray[np.int16]
    phonemes: tuple[Phoneme, ...]
    words: tuple[tuple[str, float, float], ...]


def voice(language: str, speaker: int) -> Voice:
    """The voice of a speaker (a number in one of the ranges above) in a language; the same for ever.

    Raises `ValueError` for a speaker outside all ranges.
    """
    for speakers, variants in (
        (CORPUS_SPEAKERS, _CORPUS_VARIANTS),
        (CHECK_SPEAKERS, _CHECK_VARIANTS),
        (TRAINING_SPEAKERS, _TRAINING_VARIANTS),
    ):
        if speaker in speakers:
            variant = variants[speaker % len(variants)]
            break
    else:
        raise ValueError(f"speaker {speaker}: not in any range of speakers")
    chance = np.random.default_rng(speaker)
    base = _ESPEAK_VOICES.get(language, language)
    return Voice(
        name=f"{base}+{variant}" if variant else base,
        pitch=int(chance.integers(30, 71)),
        pitch_range=int(chance.integers(35, 66)),
        rate_wpm=int(chance.integers(135, 186)),
    )


def speak(text: str, *, language: str, speaker: int, rate_wpm: int | None = None) -> Speech:
    """Say `text` with a speaker's voice; `rate_wpm` overrides the speaker's own rate. Deterministic.

    `language` is a BCP-47 primary subtag that espeak-ng knows. Words are those of `text`
    between spaces (Chinese: its characters; Thai: `WORDS`). One thread at a time.
    Raises `ValueError` for an unknown voice, `OSError` where libespeak-ng is not installed.
    """
    who = voice(language, speaker)
    with _library() as (library, rate_hz):
        return _say(library, rate_hz, text, who, rate_wpm)


def _say(library: Any, rate_hz: int, text: str, who: Voice, rate_wpm: int | None) -> Speech:
    if library.espeak_SetVoiceByName(who.name.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {who.name!r}")
    for parameter, value in (
        (_RATE, rate_wpm or who.rate_wpm), (_VOLUME, 100), (_PITCH, who.pitch), (_RANGE, who.pitch_range),
    ):  # fmt: skip
        library.espeak_SetParameter(parameter, value, 0)
    spoken = SPOKEN.get(text, text)
    pieces, events = _synthesize(library, spoken)
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    end_s = len(wave) / rate_hz
    return Speech(
        samples=_resample(wave, rate_hz),
        phonemes=_phonemes(events, rate_hz, end_s),
        words=_words(events, spoken, text, rate_hz, end_s),
    )


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class _Mark:
    kind: int
    sample: int
    name: str = ""
    position: int = 0  # of a word: its first character, from 0
    length: int = 0


@cache
def _where() -> str | None:
    return ctypes.util.find_library("espeak-ng")


@contextmanager
def _library() -> Iterator[tuple[Any, int]]:
    """The library as loaded afresh, and its sample rate (22,050 Hz).

    What was said before changes the next samples (phases and flutter live in static variables that neither
    `espeak_Terminate` nor `espeak_Initialize` resets), so it is unloaded after every call: 4 ms.
    """
    found = _where()
    if found is None:
        raise OSError("libespeak-ng is not installed (Debian: apt-get install espeak-ng)")
    library = ctypes.CDLL(found)
    try:
        rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _PHONEME_IPA)
        if rate_hz <= 0:
            raise OSError("libespeak-ng could not be initialised")
        ctypes.CDLL(None).srand(1)  # breathy variants (f5 is one) draw their noise from the C library's rand()
        yield library, rate_hz
        library.espeak_Terminate()
    finally:
        dlclose(library._handle)


def _synthesize(library: Any, text: str) -> tuple[list[NDArray[np.int16]], list[_Mark]]:
    pieces: list[NDArray[np.int16]] = []
    marks: list[_Mark] = []

    def receive(wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events and events[index].type != _EVENT_END:
            event = events[index]
            index += 1
            if event.type == _EVENT_PHONEME:
                name = bytes(event.id.string).split(b"\0")[0].decode("utf-8", "ignore")
                marks.append(_Mark(_EVENT_PHONEME, event.sample, name))
            elif event.type == _EVENT_WORD:
                marks.append(_Mark(_EVENT_WORD, event.sample, "", event.text_position - 1, event.length))
        return 0

    callback = _Callback(receive)
    library.espeak_SetSynthCallback(callback)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _CHARS_UTF8 | _PHONEME_INPUT | _ENDPAUSE, None, None)
    return pieces, marks


def _phonemes(marks: list[_Mark], rate_hz: int, end_s: float) -> tuple[Phoneme, ...]:
    """Each phoneme lasts until the next begins; marks of no length (tones, stress) are dropped."""
    sounds = [mark for mark in marks if mark.kind == _EVENT_PHONEME]
    starts = [mark.sample / rate_hz for mark in sounds] + [end_s]
    found = tuple(
        Phoneme(name=mark.name, start_s=start, end_s=end)
        for mark, start, end in zip(sounds, starts, starts[1:], strict=False)
        if end > start
    )
    return found if found or not end_s else (Phoneme(name="", start_s=0.0, end_s=end_s),)


def _words(
    marks: list[_Mark], read: str, text: str, rate_hz: int, end_s: float
) -> tuple[tuple[str, float, float], ...]:
    """Each word ends where the next begins, or where the pause before that begins."""
    words = [mark for mark in marks if mark.kind == _EVENT_WORD]
    sounds = [mark for mark in marks if mark.kind == _EVENT_PHONEME]
    texts = [read[mark.position : mark.position + mark.length] for mark in words]
    written = WORDS.get(text, tuple(text.split()))
    if len(written) == len(words):
        texts = list(written)
    found = []
    for index, mark in enumerate(words):
        limit = words[index + 1].sample / rate_hz if index + 1 < len(words) else end_s
        last = max((sound.sample for sound in sounds if sound.name and sound.sample / rate_hz < limit), default=0)
        pauses = [sound.sample / rate_hz for sound in sounds if not sound.name and sound.sample > last]
        found.append((texts[index], mark.sample / rate_hz, min([limit, *pauses])))
    return tuple(found)


def _resample(wave: NDArray[np.int16], rate_hz: int) -> NDArray[np.int16]:
    from scipy.signal import resample_poly

    if not len(wave):
        return wave
    divisor = math.gcd(SAMPLE_RATE_HZ, rate_hz)
    slower: NDArray[np.float32] = resample_poly(wave.astype(np.float32), SAMPLE_RATE_HZ // divisor, rate_hz // divisor)
    clipped: NDArray[np.int16] = np.clip(np.rint(slower), -32768, 32767).astype(np.int16)
    return clipped
