"""Windows of synthetic speech that the sample recogniser learns from: many voices, spoiled as recordings are.

Everything is drawn from one seeded generator; the same seed gives the same windows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ
from stages.sample.sentences import LANGUAGES, SENTENCES, WORDS
from stages.sample.voice import TRAINING_SPEAKERS, Speech, speak

UNSPACED = ("zh", "th")
"""Languages that write no spaces between words."""

_POOL = 3  # utterances kept per sentence; one of them all is spoken anew, by somebody else, for every third window
_SPOILED_SHARE = 0.6
_BED_S = 60.0

Wave = NDArray[np.float32]
Labels = NDArray[np.int16]

FRAME = SAMPLE_RATE_HZ // 50
"""Samples per position of the Whisper encoder."""


@dataclass(frozen=True)
class Place:
    """A word: its first character and the one after its last, its first sample and the one after its last."""

    first: int
    end: int
    first_sample: int
    end_sample: int

    def moved(self, characters: int, samples: int) -> "Place":
        return Place(
            self.first + characters, self.end + characters, self.first_sample + samples, self.end_sample + samples
        )


@dataclass(frozen=True, kw_only=True)
class Window:
    """Sound (n,) float32 in -1..1 at 16 kHz, what is said in it, and the language of most of it ("" for no speech).

    `phonemes` (n // 320,) says what sounds in the middle of every 20 ms: 0 for a pause, else a number of
    `phoneme_numbers`; `words` says where the words are, in the text and in the sound.
    """

    samples: Wave
    text: str
    language: str
    phonemes: Labels
    words: tuple[Place, ...] = ()


@dataclass(frozen=True)
class _Utterance:
    language: str
    sentence: str
    speech: Speech


@cache
def phoneme_numbers() -> dict[tuple[str, str], int]:
    """Numbers, from 1, of all (language, IPA name) that occur in the sentences."""
    found = {
        (language, phoneme.name)
        for language in LANGUAGES
        for sentence in SENTENCES[language]
        for phoneme in speak(sentence, language=language, speaker=TRAINING_SPEAKERS.start).phonemes
        if phoneme.name
    }
    return {phoneme: number for number, phoneme in enumerate(sorted(found), 1)}


def written(words: tuple[str, ...], language: str) -> str:
    """Words joined the way the language is written."""
    return ("" if language in UNSPACED else " ").join(words)


@dataclass(frozen=True)
class Wanted:
    """What a window shall be: at most so long, with at most so many utterances, spoiled or as synthesised.

    `shuffled`: one to three words of one sentence after one to three of another.
    """

    limit_s: float
    utterances: int = 100
    spoiled: bool = True
    shuffled: bool = False


def windows(*, speakers: range, seed: int, wanted: Iterable[Wanted]) -> Iterator[Window]:
    """One window for each of `wanted`, said by `speakers`."""
    chance = np.random.default_rng(seed)
    pool = [
        _utter(chance, language, sentence, speakers)
        for language in LANGUAGES
        for sentence in SENTENCES[language]
        for _ in range(_POOL)
    ]
    beds = _beds(chance)
    for number, want in enumerate(wanted):
        if number % 3 == 0:
            slot = int(chance.integers(len(pool)))
            pool[slot] = _utter(chance, pool[slot].language, pool[slot].sentence, speakers)
        window = _compose(chance, pool, want)
        yield _spoil(chance, window, beds) if want.spoiled and chance.random() < _SPOILED_SHARE else window


def _utter(chance: np.random.Generator, language: str, sentence: str, speakers: range) -> _Utterance:
    speaker = int(chance.integers(speakers.start, speakers.stop))
    rate = int(chance.integers(115, 211))
    return _Utterance(language, sentence, speak(sentence, language=language, speaker=speaker, rate_wpm=rate))


def _compose(chance: np.random.Generator, pool: list[_Utterance], want: Wanted) -> Window:
    """Utterances with pauses between them: of one language, sometimes two; sometimes none at all."""
    limit_s = want.limit_s
    short = chance.random() < 0.2
    target_s = float(chance.uniform(1.5, limit_s / 2) if short else chance.uniform(limit_s / 2, limit_s))
    if chance.random() < 0.04:
        nothing = np.zeros(int(target_s * SAMPLE_RATE_HZ), np.float32)
        return Window(samples=nothing, text="", language="", phonemes=np.zeros(len(nothing) // FRAME, np.int16))
    per_language = len(pool) // len(LANGUAGES)
    languages = [int(chance.integers(len(LANGUAGES)))]
    if chance.random() < 0.12:
        languages.append(int(chance.integers(len(LANGUAGES))))
    pieces = [_silence(chance, 0.7)]
    labels = [np.zeros(len(pieces[0]), np.int16)]
    texts: list[str] = []
    words: list[Place] = []
    spoken_s = dict.fromkeys(LANGUAGES, 0.0)
    while True:
        # With two languages the second takes over at a random place, once.
        if len(languages) == 2 and texts and chance.random() < 0.4:
            languages = languages[1:]
        said = pool[languages[0] * per_language + int(chance.integers(per_language))]
        text, sound, label, places = _part(chance, said, shuffled=want.shuffled)
        before = sum(map(len, pieces))
        length = before + len(sound)
        if length > limit_s * SAMPLE_RATE_HZ or (texts and length > target_s * SAMPLE_RATE_HZ):
            if texts:
                break
            continue
        pieces += [sound, _silence(chance, 0.1 if want.shuffled else 0.9)]
        labels += [label, np.zeros(len(pieces[-1]), np.int16)]
        words += [place.moved(sum(len(known) + 1 for known in texts), before) for place in places]
        texts.append(text)
        spoken_s[said.language] += len(sound) / SAMPLE_RATE_HZ
        if len(texts) == want.utterances:
            break
    samples = np.concatenate(pieces)[: int(limit_s * SAMPLE_RATE_HZ)]
    return Window(
        samples=samples,
        text=" ".join(texts),
        language=max(spoken_s, key=lambda key: spoken_s[key]),
        phonemes=np.concatenate(labels)[FRAME // 2 :: FRAME][: len(samples) // FRAME],
        words=tuple(words),
    )


def _silence(chance: np.random.Generator, most_s: float) -> Wave:
    return np.zeros(int(chance.uniform(0.03, most_s) * SAMPLE_RATE_HZ), np.float32)


def _part(chance: np.random.Generator, said: _Utterance, *, shuffled: bool) -> tuple[str, Wave, Labels, list[Place]]:
    """The utterance without its silent ends, at a random speed; sometimes only some of its words, cut between two.

    With a phoneme number for every sample, and the places of the words.
    """
    words = said.speech.words
    whole = list(WORDS.get(said.sentence, said.sentence if said.language == "zh" else said.sentence.split()))
    if said.language == "zh":
        whole[-2:] = ["".join(whole[-2:])]  # the full stop is not spoken
    if len(whole) != len(words):  # espeak-ng reads some small words as one with their neighbour
        whole, words = [said.sentence], (("", words[0][1], words[-1][2]),)
    first, last = 0, len(words)
    if shuffled and len(words) > 1:
        count = min(int(chance.integers(1, 4)), len(words))
        first = int(chance.integers(0, len(words) - count + 1))
        last = first + count
    elif len(words) > 2 and chance.random() < 0.25:
        first = int(chance.integers(0, len(words) - 1)) if chance.random() < 0.5 else 0
        last = int(chance.integers(first + 1, len(words))) if not first else len(words)
    start = int(words[first][1] * SAMPLE_RATE_HZ)
    sound = said.speech.samples[start : int((words[last - 1][2] + 0.05) * SAMPLE_RATE_HZ)]
    speed = chance.uniform(0.92, 1.09)
    at = np.arange(0, len(sound) - 1, speed)
    gain = 10 ** (chance.uniform(-4, 4) / 20) / 32768

    phonemes = said.speech.phonemes
    names = np.array([phoneme_numbers().get((said.language, one.name), 0) for one in phonemes], np.int16)
    starts = np.array([one.start_s for one in phonemes]) * SAMPLE_RATE_HZ
    sounding = np.searchsorted(starts, start + at, "right")
    label = np.where(sounding > 0, names[np.maximum(sounding - 1, 0)], 0).astype(np.int16)

    places = []
    for number in range(first, last):
        character = len(written(tuple(whole[first : number + 1]), said.language)) - len(whole[number])
        span = [round((time_s * SAMPLE_RATE_HZ - start) / speed) for time_s in words[number][1:]]
        places.append(Place(character, character + len(whole[number]), span[0], span[1]))
    text = written(tuple(whole[first:last]), said.language)
    return text, (np.interp(at, np.arange(len(sound)), sound) * gain).astype(np.float32), label, places


def _beds(chance: np.random.Generator) -> tuple[Wave, Wave, Wave]:
    """A minute each of hiss, of rumble, and of chords with decaying notes; root mean square 1."""
    n = int(_BED_S * SAMPLE_RATE_HZ)
    hiss = chance.standard_normal(n)
    spectrum = np.fft.rfft(chance.standard_normal(n))
    rumble = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), n)
    music = np.zeros(n)
    for start in range(0, n - SAMPLE_RATE_HZ, SAMPLE_RATE_HZ // 2):
        length = min(2 * SAMPLE_RATE_HZ, n - start)
        t = np.arange(length) / SAMPLE_RATE_HZ
        root_hz = 110 * 2 ** (chance.integers(0, 24) / 12)
        for ratio in (1.0, 1.26, 1.5, 2.0, 3.0):
            music[start : start + length] += np.sin(2 * np.pi * root_hz * ratio * t) * np.exp(-2 * t) / ratio
    hissing, rumbling, playing = ((bed / np.sqrt(np.mean(bed**2))).astype(np.float32) for bed in (hiss, rumble, music))
    return hissing, rumbling, playing


def _spoil(chance: np.random.Generator, window: Window, beds: tuple[Wave, Wave, Wave]) -> Window:
    """A room, a microphone, a codec's low-pass, noise and music, and a level."""
    samples = window.samples
    n = len(samples)
    level = float(np.sqrt(np.mean(samples**2))) if window.text else 0.05
    if chance.random() < 0.6:
        samples = _through_room_and_codec(chance, samples)
    for bed, share, low_db, high_db in ((beds[0], 0.5, 12, 40), (beds[1], 0.5, 5, 30), (beds[2], 0.3, 6, 25)):
        if chance.random() < share:
            start = int(chance.integers(0, len(bed) - n))
            samples = samples + bed[start : start + n] * (level * 10 ** (-chance.uniform(low_db, high_db) / 20))
    peak = float(np.abs(samples).max()) or 1.0
    samples = (samples * (10 ** (chance.uniform(-26, -0.5) / 20) / peak)).astype(np.float32)
    return replace(window, samples=samples)


def _through_room_and_codec(chance: np.random.Generator, samples: Wave) -> Wave:
    """One pass in the frequency domain: decaying echoes, a random tilt and a low-pass at 3.4 to 8 kHz."""
    from scipy.fft import next_fast_len

    n = len(samples)
    tail = int(0.3 * SAMPLE_RATE_HZ)
    size = int(next_fast_len(n + tail, real=True))
    response = np.zeros(tail)
    response[0] = 1.0
    if chance.random() < 0.5:
        decay_s = chance.uniform(0.02, 0.1)
        echoes = chance.standard_normal(tail) * np.exp(-np.arange(tail) / SAMPLE_RATE_HZ / decay_s)
        response += echoes * chance.uniform(0.02, 0.12)
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    tilt_db = chance.uniform(-8, 8) * (hz / 4000 - 1)
    low_pass = 1 / (1 + (hz / chance.uniform(3400, 9000)) ** 16)
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(response, size) * 10 ** (tilt_db / 20) * low_pass
    return np.fft.irfft(spectrum, size)[:n].astype(np.float32)
