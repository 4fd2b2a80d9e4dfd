"""WhisperX below its one-clip API: voice activity, language probabilities and transcription in batches.

whisperx's own `transcribe` takes one sound at a time, hears its language in the first 30 s only and returns no
probability; what it is made of does better: its voice activity and its merging of stretches, and CTranslate2's
`detect_language` and `generate`, with the options that whisperx gives that. Word times that no aligner gives come from
faster-whisper's `find_alignment`.
"""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ, Word
from pipeline.stage import put_off_deadline
from stages.cuda import try_whisper
from stages.language import subtag
from stages.transcript import placed, untimed

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Samples = NDArray[np.float32]

Encoded = NDArray[np.float32]
"""What the encoder made of a sound: (frames, width)."""

Place: TypeAlias = Callable[[int, str], tuple[Word, ...] | None]
"""Words of the text of the n-th sound with times that another model gives them; None where it gives none."""

_KEPT_BYTES = 256_000_000
"""Of what the encoder made of sounds that may be transcribed as they were heard: 33 of large-v3, 7.7 MB each."""

_FRAME = 160  # samples that Whisper's mel frames lie apart
_MEL_TAIL = 800  # samples of silence after which nothing of a sound is in a frame any more; those have 400
_MEL_FLOOR = -10.0  # log10 of what Whisper takes for the least power
_PYANNOTE_OFFSET = 0.363  # whisperx's: speech ends where its probability falls below
_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")


@dataclass(frozen=True)
class Voiced:
    """A stretch of at most `window_s`, from the start of a voice to the end of one, and the voiced seconds in it."""

    start_s: float
    end_s: float
    speech_s: float


@dataclass(frozen=True)
class Said:
    """A transcript, the mean log-probability of its tokens, and its words: as a `Place` gave them, else by the model's
    own attention. It is `cut_off` where the model had no room to end it: what follows is missing.

    Word times of that are seconds of the sound. The sample recogniser puts the start of half of the words of its corpus
    within 0.1 s of the truth, of nine in ten within 0.25 s, early as often as late.
    """

    text: str
    avg_logprob: float
    words: tuple[Word, ...] = ()  # none where they are placed
    placed: tuple[Word, ...] | None = None
    cut_off: bool = False


def named(folder: Path | None) -> set[str]:
    """`Recogniser.languages` of the model in a folder, by its words alone; none where these are not there."""
    words = folder / "tokenizer.json" if folder else None
    return set(map(subtag, _LANGUAGE_TOKEN.findall(words.read_text("utf-8")))) if words and words.is_file() else set()


class Recogniser:
    """A multilingual Whisper in CTranslate2's form with a voice activity detector.

    `device` is "auto", "cpu" or "cuda"; sounds are mono float32 in -1..1 at 16 kHz. Raises `ValueError` for a folder
    that holds no such model or one that knows only English, and for a GPU that cannot be used; see `try_whisper`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        compute_type: str,
        threads: int,
        beam: int,
        batch: int,
        vad: str,
        onset: float,
        window_s: float,
        context_s: float,
    ) -> None:
        # torch first: it loads the CUDA libraries that CTranslate2 looks for, and has no way of its own to find
        import torch

        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if compute_type == "auto":
            compute_type = "float16" if self.device == "cuda" else "float32"
        for needed in ("model.bin", "tokenizer.json"):
            if not (folder / needed).is_file():
                raise ValueError(f"speech: {folder} is no CTranslate2 Whisper: it has no {needed}")
        with quiet():
            from whisperx.asr import load_model

            self._pipeline = load_model(
                str(folder),
                self.device,
                compute_type=compute_type,
                asr_options={"beam_size": beam},
                vad_model=_silero(onset, window_s) if vad == "silero" else None,
                vad_method=vad,
                vad_options={"vad_onset": onset, "vad_offset": _PYANNOTE_OFFSET, "chunk_size": window_s},
                threads=threads,
                local_files_only=True,
            )
        # whisperx gives its loggers a handler that writes to stdout, at import
        whisperx = logging.getLogger("whisperx")
        whisperx.handlers.clear()
        whisperx.propagate = True
        self._whisper = self._pipeline.model
        encode = self._whisper.encode
        self._whisper.encode = lambda given: encode(given) if isinstance(given, torch.Tensor) else given
        if not self._whisper.model.is_multilingual:
            raise ValueError(f"speech: the Whisper in {folder} knows only English: it cannot tell languages")
        named = (_LANGUAGE_TOKEN.fullmatch(token) for token in self._whisper.hf_tokenizer.get_vocab())
        self._codes = {subtag(match[1]): match[1] for match in named if match}
        self._batch, self._onset, self._window_s = batch, onset, window_s
        self._context = round(context_s * SAMPLE_RATE_HZ)
        if self.device == "cuda":
            try_whisper(lambda: self._whisper.encode(self._mels([np.zeros(_FRAME, np.float32)])))

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP-47 primary subtags of the languages that the model can name."""
        return tuple(sorted(self._codes))

    def voice(self, sound: Samples) -> list[Voiced]:
        """Where somebody speaks, merged into stretches of at most `window_s`, cut in pauses where there are any."""
        detector = self._pipeline.vad_model
        found = detector({"waveform": detector.preprocess_audio(sound), "sample_rate": SAMPLE_RATE_HZ})
        if not found:
            return []
        merged = detector.merge_chunks(found, self._window_s, onset=self._onset, offset=_PYANNOTE_OFFSET)
        end_s = len(sound) / SAMPLE_RATE_HZ
        return [
            Voiced(
                max(0.0, float(one["start"])),
                min(end_s, float(one["end"])),
                float(sum(min(end_s, end) - max(0.0, start) for start, end in one["segments"])),
            )
            for one in merged
        ]

    def listen(self, sounds: Sequence[Samples], keep: Sequence[bool]) -> list[tuple[dict[str, float], Encoded | None]]:
        """Language probabilities of each sound (of its first `context_s`), by subtag, and what the encoder made of it.

        That comes with those to `keep`, as many as `_KEPT_BYTES` hold, and on a processor alone, where the encoder is
        the dearest part.
        """
        found: list[tuple[dict[str, float], Encoded | None]] = []
        room = _KEPT_BYTES if self.device == "cpu" else 0
        for some in _batches(list(zip(sounds, keep, strict=True)), self._batch):
            encoded = self._whisper.encode(self._mels([sound for sound, _ in some]))
            made = _array(encoded) if room else None
            for place, guesses in enumerate(self._whisper.model.detect_language(encoded)):
                kept = None
                if some[place][1] and made is not None and made[place].nbytes <= room:
                    kept = made[place].copy()
                    room -= kept.nbytes
                found.append(({subtag(token[2:-2]): float(p) for token, p in guesses}, kept))
        return found

    def transcribe(self, sounds: Sequence[tuple[Samples, str, Encoded | None]], place: Place) -> list[Said]:
        """What is said in each sound (its first `context_s`), in the same order.

        A sound comes with its language by subtag, and, where `listen` has given it, with what the encoder made of it.
        Only a text that `place` gives no times passes the decoder once more for them.
        """
        found: dict[int, Said] = {}
        for language, known in sorted({(language, encoded is not None) for _, language, encoded in sounds}):
            tokenizer = self._tokenizer(language)
            places = [n for n, one in enumerate(sounds) if (one[1], one[2] is not None) == (language, known)]
            for some in _batches(places, self._batch):
                given = _stacked(sounds[n][2] for n in some) if known else self._mels([sounds[n][0] for n in some])
                encoded = self._whisper.encode(given)
                lengths = [len(sounds[n][0]) for n in some]
                made = self._decoded(encoded, tokenizer)
                timed = [place(n, said.text) if said.text else () for n, (_, said) in zip(some, made, strict=True)]
                left = {row: made[row][0] for row, words in enumerate(timed) if words is None}
                own = self._words(tokenizer, encoded, left, language, lengths) if left else {}
                for row, (n, (_, said)) in enumerate(zip(some, made, strict=True)):
                    found[n] = replace(said, words=own.get(row, ()), placed=timed[row])
        return [found[n] for n in range(len(sounds))]

    def _decoded(self, encoded: Any, tokenizer: Any) -> list[tuple[str, Said]]:
        """What is said in each sound of a batch: the text as it is decoded, and all but the words."""
        options, prompt = self._pipeline.options, [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        room = self._whisper.max_length - len(prompt)
        made = self._whisper.model.generate(
            encoded,
            [prompt] * encoded.shape[0],
            beam_size=options.beam_size,
            patience=options.patience,
            length_penalty=options.length_penalty,
            max_length=2 * room,  # CTranslate2 gives a text half of it, and whisperx so half of what the model can say
            suppress_blank=options.suppress_blank,
            suppress_tokens=options.suppress_tokens,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            repetition_penalty=options.repetition_penalty,
            return_scores=True,
        )
        found = []
        for one in made:
            said = one.sequences_ids[0]
            logprob = one.scores[0] * len(said) ** options.length_penalty / (len(said) + 1)  # as whisperx has it
            text = tokenizer.decode(said)
            found.append((text, Said(text.strip(), float(logprob), cut_off=len(said) >= room)))
        return found

    def _words(
        self, tokenizer: Any, encoded: Any, texts: Mapping[int, str], language: str, lengths: Sequence[int]
    ) -> dict[int, tuple[Word, ...]]:
        """Words of texts by their rows of a batch, placed by what the decoder looks at when it is made to say them.

        `encoded` and `lengths`, in samples, are of the whole batch.
        """
        room = self._whisper.max_length - len(tokenizer.sot_sequence) - 2
        said = [tokenizer.encode(text) for text in texts.values()]
        # nothing at all, which has no places, and a loop without end, which the decoder cannot take in again
        said = [one if 0 < len(one) <= room else [tokenizer.eot] for one in said]
        frames = [max(2, min(lengths[row], self._context) // _FRAME) for row in texts]
        found = self._whisper.find_alignment(tokenizer, said, _rows(encoded, [*texts]), frames)
        return {
            row: placed(text, language, [(one["word"], one["start"], one["end"], one["probability"]) for one in pieces])
            or untimed(text, language)
            for (row, text), pieces in zip(texts.items(), found, strict=True)
        }

    def _tokenizer(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        made = Tokenizer(self._whisper.hf_tokenizer, True, task="transcribe", language="en")  # noqa: FBT003
        # set past the constructor, whose list of languages is that of one version of Whisper
        made.language_code = self._codes[language]
        made.language = self._whisper.hf_tokenizer.token_to_id(f"<|{made.language_code}|>")
        return made

    def _mels(self, sounds: Sequence[Samples]) -> "torch.Tensor":
        import torch
        from whisperx.audio import log_mel_spectrogram

        size, n_frames, found = self._whisper.model.n_mels, self._context // _FRAME, []
        for sound in sounds:
            heard = sound[: self._context]
            mel = log_mel_spectrogram(heard, n_mels=size, padding=min(_MEL_TAIL, self._context - len(heard)))
            # Of the silence after it every frame is what Whisper's scale makes of nothing: 8 below the loudest at most.
            silence = max((_MEL_FLOOR + 4) / 4, float(mel.max()) - 2)
            found.append(torch.nn.functional.pad(mel, (0, n_frames - mel.shape[-1]), value=silence))
        return torch.stack(found)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries print off stdout (it goes to the log instead), and their warnings about one another away."""
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")
        yield
    for line in printed.getvalue().splitlines():
        log.debug("%s", line)


def _stacked(encoded: Iterable[Encoded | None]) -> Any:
    """What the encoder made of several sounds, as CTranslate2 takes it."""
    from ctranslate2 import StorageView

    return StorageView.from_array(np.stack([one for one in encoded if one is not None]))


def _array(encoded: Any) -> NDArray[np.float32]:
    """A batch that the encoder made, (sounds, frames, width); NumPy has no bfloat16, which it may be computed in."""
    from ctranslate2 import DataType, Device

    return np.asarray(encoded.to(DataType.float32).to_device(Device.cpu))


def _rows(encoded: Any, rows: Sequence[int]) -> Any:
    """Some of a batch that the encoder made."""
    if len(rows) == encoded.shape[0]:
        return encoded
    batch = _array(encoded)
    return _stacked(batch[row] for row in rows)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Each is a sign of life: half an hour of speech takes hours on few cores."""
    for start in range(0, len(items), size):
        put_off_deadline()
        yield items[start : start + size]


def _silero(onset: float, longest_s: float) -> Any:
    """The Silero detector that comes with faster-whisper, in whisperx's form; its own comes from GitHub."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps
    from whisperx.diarize import Segment
    from whisperx.vads import Vad

    options = VadOptions(
        threshold=onset,
        min_speech_duration_ms=100,
        max_speech_duration_s=longest_s,
        min_silence_duration_ms=200,
        speech_pad_ms=100,
    )

    class Silero(Vad):  # type: ignore[misc]
        def __call__(self, audio: dict[str, Any], **_: Any) -> list[Any]:
            spans = get_speech_timestamps(audio["waveform"], options)
            return [Segment(one["start"] / SAMPLE_RATE_HZ, one["end"] / SAMPLE_RATE_HZ, "UNKNOWN") for one in spans]

        @staticmethod
        def preprocess_audio(audio: Samples) -> Samples:
            return audio

    return Silero(onset)
