"""What is said in each clip and in which language: voice activity, language identification, WhisperX transcription.

Nothing is forced: each clip is transcribed in the language that is heard in it, part by part where it is mixed, and the
expected language serves the verdict (`stages.language`) and the choice between languages that count as one. A voice
that the model hears in a language nobody expected, or that has no name outside Whisper, is a reading like any other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ, Clip, Clips, Speech, Speeches, Syncs, Video, Word
from pipeline.bench import Bench
from pipeline.stage import RUNTIME, Facts, Stage, Work
from stages import weights
from stages.aligners import LEAST_GB, Aligners, alignable
from stages.cuda import gpu_memory_gb, spoiled_by, torch_device
from stages.judge import Measured
from stages.language import Heard, called, languages_heard, likeliest, overall, same, spread, together, verdict
from stages.noise import snr_db
from stages.registry import ALIGNERS
from stages.spare import BY_SYNC, Limits, policy_of, useless
from stages.sync import read_wav
from stages.transcript import MAX_REPETITION, repetition
from stages.voices import Voices
from stages.whisper import Encoded, Recogniser, Said, Voiced

CHUNK_S = 30.0
"""What Whisper hears at once."""

_SHORT_S = 6.0
"""Nobody says in so little what fills the model's room for text, 444 tokens: a letter takes 3 at most."""

_CUT_OFF_LOGPROB = -10.0
"""Of a clip with a text that has no end: far below what any policy takes."""

_AT_ONCE = 8
"""Batches of clips in memory: two hours of one talker are 460 MB of samples, which nobody needs at the same time."""

_WHISPER_GB = 4.4
"""What the 7 GB of a GPU that recipes reckon with leave for Whisper and its work beside two large aligners. The weights
of large-v3 are 3.1 in float16; the rest is not measured."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A part of a clip that is transcribed at once: at most 30 s, one language (a subtag)."""

    start_s: float
    end_s: float
    language: str


@dataclass(frozen=True, kw_only=True)
class Transcribe(Stage[Speeches]):
    """One `Speech` per clip; silence gives one with `speech_share` 0, no text and no language.

    A clip whose sync breaks a limit of `spare` gets none.

    `sure` and `mixed_share` are part of the measurement, since the language of a transcript follows from them: a window
    is sure of a language from that probability on, and a clip is mixed where windows are sure of two languages, each
    for that share of the time: one of four or five windows, which are about as long, is too little.

    Words have the times of a forced aligner where a clip is heard in the language that its video is expected in and
    there is an aligner for that (`stages.registry.ALIGNERS`), but for texts with digits, except in Chinese: `aligned`
    says whether all of them have. Others have those of Whisper's own attention, which are coarser.

    A part with more text than the model has room for is heard again in two halves, unless it is a loop. A text that
    has no end even so makes the clip's `avg_logprob` -10.
    """

    name: ClassVar[str] = "speech"
    version: ClassVar[int] = (
        7  # 6: how far the voice stands above music and noise; 7: whether others are heard beside it
    )
    needs: ClassVar[tuple[type, ...]] = (Video, Clips)
    gives: ClassVar[type] = Speeches

    model: str = "large-v3"  # a name of `stages.weights`, or the folder of a CTranslate2 Whisper
    vad: str = "silero"  # "silero" (comes with faster-whisper) or "pyannote" (comes with whisperx)
    onset: float = 0.5  # probability of voice from which a stretch of speech begins
    window_s: float = 6.0  # the longest window of language identification
    windows: int = 5  # the most windows per clip, spread over its speech, the longer the rather
    sure: float = 0.6
    mixed_share: float = 0.3
    part_s: float = CHUNK_S  # the longest stretch of speech that is transcribed at once
    context_s: float = CHUNK_S  # what the model hears at once, silence included; Whisper learned with 30 s
    beam: int = 5
    second_voice: bool = True  # whether voices beside the clip's own are looked for
    align: bool = True  # word times by forced alignment; without, all are Whisper's own
    compute_type: str = "auto"  # of CTranslate2; "auto": float16 on a GPU, float32 on a CPU
    spare: Limits = field(default=(), metadata={"absent": ()})  # a clip that breaks one of these is not heard
    batch: int = field(default=8, metadata=RUNTIME)  # sounds of 30 s at once
    device: str = field(default="auto", metadata=RUNTIME)  # "auto": a GPU if it asks for one that is there

    def __post_init__(self) -> None:
        if self.vad not in ("silero", "pyannote"):
            raise ValueError(f"speech: vad must be silero or pyannote, not {self.vad!r}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"speech: device must be auto, cpu or cuda, not {self.device!r}")
        if not 0 < self.onset < 1:
            raise ValueError("speech: onset must lie between 0 and 1")
        if not 0.5 <= self.sure <= 1 or not 0 < self.mixed_share <= 0.5:
            raise ValueError("speech: sure must lie in 0.5..1, and mixed_share above 0 and up to 0.5")
        if not 1 <= self.window_s <= self.part_s <= self.context_s <= CHUNK_S:
            raise ValueError("speech: window_s, part_s and context_s must lie in 1..30 and not fall in this order")
        if self.windows < 1 or self.beam < 1 or self.batch < 1:
            raise ValueError("speech: windows, beam and batch must be at least 1")
        policy_of(self.spare, BY_SYNC)

    def inputs(self) -> tuple[type, ...]:
        """Sync as well, where it decides what need not be heard."""
        return (*self.needs, Syncs) if self.spare else self.needs

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def models_for(self, languages: Iterable[str | None]) -> tuple[str, ...]:
        found = {language for tag in languages if (language := alignable(tag)) is not None}
        return tuple(ALIGNERS[language] for language in sorted(found)) if self.align else ()

    def weights(self) -> dict[str, str]:
        aligners = {ALIGNERS[one]: weights.digest(ALIGNERS[one]) for one in ALIGNERS} if self.align else {}
        return {"model": weights.digest(self.model), **aligners}

    def open(self) -> Work[Speeches]:
        recogniser = Recogniser(
            weights.path(self.model),
            device=torch_device(self.device, self.resources.gpus),
            compute_type=self.compute_type,
            threads=max(1, int(self.resources.cpus)),
            beam=self.beam,
            batch=self.batch,
            vad=self.vad,
            onset=self.onset,
            window_s=self.window_s,
            context_s=self.context_s,
        )
        aligners = Aligners(recogniser.device, self._aligners_gb(recogniser.device)) if self.align else None
        voices = Voices(recogniser.device) if self.second_voice else None
        model = f"{Path(self.model).name} {weights.digest(self.model)}"

        def work(facts: Facts, bench: Bench) -> Speeches:
            clips, size = self._useful(facts), _AT_ONCE * self.batch
            groups = [clips[start : start + size] for start in range(0, len(clips), size)]
            files = bench.ahead([clip.audio for clip in group] for group in groups)
            found: list[Speech] = []
            with spoiled_by(RuntimeError):
                for group, paths in zip(groups, files, strict=True):
                    sounds = [read_wav(path).astype(np.float32) / np.float32(32768) for path in paths]
                    found += self._measure(recogniser, aligners, voices, group, sounds, facts[Video].language)
            return Speeches(items=tuple(found), model=model)

        return work

    def _aligners_gb(self, device: str) -> float:
        """What aligners may take beside Whisper: of a GPU all of the worker's share of it (`pipeline.shares`)."""
        if device != "cuda":
            return LEAST_GB
        share_gb = self.resources.gpus * (gpu_memory_gb() or 0.0)
        return max(LEAST_GB, max(share_gb, self.resources.gpu_memory_gb) - _WHISPER_GB)

    def _useful(self, facts: Facts) -> tuple[Clip, ...]:
        """The clips that are heard."""
        clips = facts[Clips].items
        if not self.spare:
            return clips
        known = Measured(facts[Video], clips=facts[Clips], syncs=facts[Syncs])
        spared = useless(known, policy_of(self.spare, BY_SYNC))
        return tuple(clip for clip in clips if clip.key not in spared)

    def _measure(
        self,
        recogniser: Recogniser,
        aligners: Aligners | None,
        voices: Voices | None,
        clips: Sequence[Clip],
        sounds: Sequence[Samples],
        expected: str | None,
    ) -> list[Speech]:
        """Voice and language of all clips given, then all that is said, in batches over them."""
        voiced = [recogniser.voice(sound) for sound in sounds]
        heard, encoded = self._listen(recogniser, sounds, voiced)
        parts = [self.parts(windows, listened, expected) for windows, listened in zip(voiced, heard, strict=True)]

        def transcribe(some: Sequence[tuple[int, Part]]) -> list[Said]:
            def place(n: int, text: str) -> tuple[Word, ...] | None:
                return _placed(sounds[some[n][0]], some[n][1], text, aligners, expected)

            return recogniser.transcribe(
                [(_cut(sounds[number], part.start_s, part.end_s), part.language,
                  encoded.get((number, part.start_s, part.end_s)))
                 for number, part in some],
                place,
            )  # fmt: skip

        transcripts = _whole(parts, voiced, transcribe)
        found = []
        for clip, sound, windows, listened, said in zip(clips, sounds, voiced, heard, transcripts, strict=True):
            mean = overall(listened)
            language = called(likeliest(mean), expected, mean) if mean else ""
            words, aligned = _words(said)
            speech_s = sum(window.speech_s for window in windows)
            found.append(
                Speech(
                    key=clip.key,
                    speech_share=min(1.0, speech_s / (len(sound) / SAMPLE_RATE_HZ)),
                    speech_s=speech_s,
                    snr_db=snr_db(sound, windows),
                    other_voice_share=voices.other_share(sound) if voices else None,
                    language=language,
                    language_probability=together(mean, language),
                    verdict=verdict(
                        listened, expected, known=recogniser.languages, sure=self.sure, mixed_share=self.mixed_share
                    ),
                    windows=tuple(window.record() for window in listened),
                    text=" ".join(line.text for _, line in said if line.text),
                    words=words,
                    avg_logprob=_mean_logprob(said),
                    aligned=aligned,
                )
            )
        return found

    def _listen(
        self, recogniser: Recogniser, sounds: Sequence[Samples], voiced: Sequence[Sequence[Voiced]]
    ) -> tuple[list[list[Heard]], dict[tuple[int, float, float], Encoded]]:
        """Languages of evenly spread windows of every clip; and by clip, start and end what the encoder made of them.

        That is asked for where a window will be a part as well, and needs no second pass of the encoder.
        """
        chosen = [
            (number, windows[index])
            for number, windows in enumerate(voiced)
            for index in spread([one.end_s - one.start_s for one in windows], self.windows)
        ]
        listened = recogniser.listen(
            [_cut(sounds[number], one.start_s, one.end_s) for number, one in chosen],
            [len(voiced[number]) == 1 or self.part_s <= self.window_s for number, _ in chosen],
        )
        heard: list[list[Heard]] = [[] for _ in sounds]
        kept = {}
        for (number, one), (probabilities, encoded) in zip(chosen, listened, strict=True):
            heard[number].append(Heard(start_s=one.start_s, end_s=one.end_s, probabilities=probabilities))
            if encoded is not None:
                kept[number, one.start_s, one.end_s] = encoded
        return heard, kept

    def parts(self, windows: Sequence[Voiced], heard: Sequence[Heard], expected: str | None = None) -> list[Part]:
        """The stretches of speech put together into parts of `part_s`: in one language, or in as many as were heard.

        Of languages that count as one that is taken which is expected, else the most probable.
        """
        if not heard:
            return []
        spoken = languages_heard(heard, sure=self.sure, mixed_share=self.mixed_share)
        mean = overall(heard)
        names = [called(one, expected, mean) for one in (spoken if len(spoken) > 1 else [likeliest(mean)])]
        found: list[Part] = []
        for window in windows:
            middle_s = (window.start_s + window.end_s) / 2
            nearest = min(heard, key=lambda one: abs((one.start_s + one.end_s) / 2 - middle_s))
            language = max(names, key=lambda one: together(nearest.probabilities, one))
            if found and found[-1].language == language and window.end_s - found[-1].start_s <= self.part_s:
                found[-1] = Part(found[-1].start_s, window.end_s, language)
            else:
                found.append(Part(window.start_s, window.end_s, language))
        return found


def _cut(sound: Samples, start_s: float, end_s: float) -> Samples:
    return sound[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]


def _whole(
    parts: Sequence[Sequence[Part]],
    voiced: Sequence[Sequence[Voiced]],
    transcribe: Callable[[Sequence[tuple[int, Part]]], list[Said]],
) -> list[list[tuple[Part, Said]]]:
    """What is said in the parts of each clip; those that the model cannot say to their end are heard again in halves.

    Not so loops, which have no end: they keep what was heard.
    """
    found: list[list[tuple[Part, Said]]] = [[] for _ in parts]
    waiting = [(number, part) for number, of_clip in enumerate(parts) for part in of_clip]
    while waiting:
        halves = []
        for (number, part), line in zip(waiting, transcribe(waiting), strict=True):
            if line.cut_off and part.end_s - part.start_s > _SHORT_S and repetition(line.text) <= MAX_REPETITION:
                halves += [(number, half) for half in _halves(part, voiced[number])]
            else:
                found[number].append((part, line))
        waiting = halves
    return [sorted(of_clip, key=lambda one: one[0].start_s) for of_clip in found]


def _halves(part: Part, windows: Sequence[Voiced]) -> tuple[Part, Part]:
    """A part in two, at the pause nearest to its middle, where there is none in its middle."""
    middle_s = (part.start_s + part.end_s) / 2
    pauses = [
        (one.end_s, other.start_s)
        for one, other in pairwise(windows)
        if part.start_s < one.end_s and other.start_s < part.end_s
    ]
    end_s, start_s = min(pauses, key=lambda pause: abs(sum(pause) / 2 - middle_s), default=(middle_s, middle_s))
    return replace(part, end_s=end_s), replace(part, start_s=start_s)


def _placed(
    sound: Samples, part: Part, text: str, aligners: Aligners | None, expected: str | None
) -> tuple[Word, ...] | None:
    """The words of a part by the aligner of the expected language, where the part is in that and it can place them."""
    language = alignable(expected)
    if aligners is None or language is None or not same(language, part.language):
        return None
    return aligners.words(sound, start_s=part.start_s, end_s=part.end_s, text=text, language=language)


def _words(said: Sequence[tuple[Part, Said]]) -> tuple[tuple[Word, ...], bool]:
    """All words with their times in the clip, and whether an aligner placed all parts."""
    spoken = [(part, line) for part, line in said if line.text]
    words: list[Word] = []
    for part, line in spoken:
        words += line.placed or (_later(word, part.start_s) for word in line.words)
    return tuple(words), bool(spoken) and all(line.placed is not None for _, line in spoken)


def _later(word: Word, by_s: float) -> Word:
    if word.start_s is None or word.end_s is None:
        return word
    return replace(word, start_s=round(word.start_s + by_s, 3), end_s=round(word.end_s + by_s, 3))


def _mean_logprob(said: Sequence[tuple[Part, Said]]) -> float:
    """Weighted by length; 0 where nothing is said, `_CUT_OFF_LOGPROB` where a text is cut off."""
    if any(line.cut_off for _, line in said):
        return _CUT_OFF_LOGPROB
    seconds = sum(part.end_s - part.start_s for part, _ in said)
    if not seconds:
        return 0.0
    return sum(line.avg_logprob * (part.end_s - part.start_s) for part, line in said) / seconds
