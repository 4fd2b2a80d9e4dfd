"""Make the sample recogniser: a small Whisper-type model for the ten languages of the sample world.

    python -m stages.sample.train_whisper --seed 0

It learns from nothing but synthetic speech of the project's own sentences (`stages.sample.spoken_windows`), in windows
of 4 s, and is written in CTranslate2's form, which faster-whisper and WhisperX load. It knows those sentences and
little else, and nothing longer than 4 s (`Transcribe.context_s`). Deterministic for one seed, one thread count and one
build of torch on one kind of processor: torch's sums on other processors differ in the last digits, and training
amplifies that.
"""

import argparse
import copy
import itertools
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.records import SAMPLE_RATE_HZ
from stages.sample.sentences import LANGUAGES, SENTENCES, WORDS
from stages.sample.spoken_windows import FRAME, UNSPACED, Wanted, Window, phoneme_numbers, windows
from stages.sample.voice import TRAINING_SPEAKERS

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer  # type: ignore[import-untyped]

log = logging.getLogger(__name__)

N_MELS = 80
_TEXT_TOKENS = 2200
_D_MODEL, _HEADS, _ENCODER_LAYERS, _DECODER_LAYERS = 128, 4, 3, 2
_STEPS = 2600
CONTEXT_S = 4
"""All windows are as long as this, silence included; nothing longer is ever heard, nothing of Whisper's 30 s of mostly
silence has to be learned, and the encoder takes a twentieth of the time."""
_LESSONS = (
    (0.06, 16, Wanted(CONTEXT_S, utterances=1, spoiled=False)),
    (0.62, 16, Wanted(CONTEXT_S, shuffled=True)),
    (1.0, 16, Wanted(CONTEXT_S, utterances=1)),
)
"""Up to which share of the steps how many windows make a batch, and of which kind. From whole sentences alone so small
a model learns to complete them from memory, and to listen to their first word hardly at all (two sentences of three
were right, with unheard voices as with known ones): words out of their order have to be heard one by one."""
_FIRST_WEIGHT = 3.0
"""Of the language and of the first word in the loss, which decide the rest of a sentence."""
_PEAK_RATE = 1.5e-3
_WARMUP = 150
_PHONEME_WEIGHT = 1.0
"""Of a second head on the encoder, used while training only, that names the phoneme at every position: espeak-ng says
when each one sounds, and an encoder that knows them gives the decoder something to look for."""
_ATTENTION_WEIGHT = 0.5
"""Of the demand that the first two heads of every decoder layer look at the word that is being written: espeak-ng says
when that is as well. Without it the decoder completes sentences from memory, and rarely finds the next one."""
_LED_HEADS = 2
_LED_MARGIN = 3  # positions
_SHOW_EVERY, _SAVE_EVERY = 25, 200


def tokenizer() -> "Tokenizer":
    """Byte-level BPE learned from the sentences, then Whisper's special tokens and timestamps in Whisper's order.

    CTranslate2 takes a vocabulary as multilingual only if it holds the empty token; text tokens come before
    `<|endoftext|>` and timestamps after `<|notimestamps|>`, since faster-whisper decides by these positions.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_TEXT_TOKENS,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # faster-whisper suppresses the first token of " -", " '" and " ♩": unless these are learned, the bare space.
    rare = [" -", " '", " ♩", " ♭"] * 50
    made.train_from_iterator([*_pieces(), *rare], trainer)
    learned = json.loads(made.to_str())["model"]
    vocabulary = {**learned["vocab"], "": len(learned["vocab"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(pair) for pair in learned["merges"]]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{language}|>" for language in LANGUAGES)]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>"]
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    made.add_tokens([AddedToken(f"<|{index * 0.02:.2f}|>", special=False) for index in range(1501)])
    return made


def _pieces() -> Iterator[str]:
    """What tokens may become: words with the space before them; characters (zh) and words (th) on their own."""
    for language in LANGUAGES:
        for sentence in SENTENCES[language]:
            if language in UNSPACED:
                yield from WORDS.get(sentence, tuple(sentence))
                yield f" {sentence[0]}"
            else:
                yield from (f" {word}" for word in sentence.split())


@dataclass(frozen=True)
class Tokens:
    """The ids that training needs."""

    text: "Tokenizer"

    def id(self, name: str) -> int:
        found = self.text.token_to_id(f"<|{name}|>")
        assert found is not None, name
        return int(found)

    def spoken(self, window: Window) -> list[int]:
        return list(self.text.encode(f" {window.text}", add_special_tokens=False).ids) if window.text else []

    def focus(self, window: Window) -> list[tuple[int, int]]:
        """First and last position of the sound (20 ms each) of every token of `spoken`; (0, -1) where unknown."""
        found = []
        for first, end in self.text.encode(f" {window.text}", add_special_tokens=False).offsets if window.text else []:
            # offsets count the space before the text
            heard = [p for p in window.words if p.first < max(end - 1, first) and first - 1 < p.end]
            ends = (heard[0].first_sample // FRAME, heard[-1].end_sample // FRAME) if heard else (0, -1)
            found.append(ends)
        return found

    def sequence(self, window: Window) -> list[int]:
        """From `<|startoftranscript|>` to `<|endoftext|>`, without timestamps."""
        start, end = self.id("startoftranscript"), self.id("endoftext")
        if not window.text:
            return [start, self.id("nospeech"), end]
        head = [start, self.id(window.language), self.id("transcribe"), self.id("notimestamps")]
        return [*head, *self.spoken(window), end]


def build(tokens: Tokens) -> Any:
    """The untrained `WhisperForConditionalGeneration`."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    end = tokens.id("endoftext")
    config = WhisperConfig(
        vocab_size=tokens.text.get_vocab_size(),
        num_mel_bins=N_MELS,
        d_model=_D_MODEL,
        encoder_layers=_ENCODER_LAYERS,
        decoder_layers=_DECODER_LAYERS,
        encoder_attention_heads=_HEADS,
        decoder_attention_heads=_HEADS,
        encoder_ffn_dim=4 * _D_MODEL,
        decoder_ffn_dim=4 * _D_MODEL,
        decoder_start_token_id=tokens.id("startoftranscript"),
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        suppress_tokens=[],
        begin_suppress_tokens=[],
        init_std=_D_MODEL**-0.5,
        attn_implementation="sdpa",
    )
    model = WhisperForConditionalGeneration(config)
    # As initialised, positions are ten times louder than what the convolutions hear, and the encoder stays deaf for
    # thousands of steps.
    encoder = model.model.encoder
    with torch.no_grad():
        encoder.embed_positions.weight.mul_(0.3)
        for convolution in (encoder.conv1, encoder.conv2):
            convolution.weight.normal_(std=2 / math.sqrt(convolution.weight[0].numel()))
    generation = model.generation_config
    generation.is_multilingual = True
    generation.lang_to_id = {f"<|{language}|>": tokens.id(language) for language in LANGUAGES}
    generation.task_to_id = {task: tokens.id(task) for task in ("transcribe", "translate")}
    generation.no_timestamps_token_id = tokens.id("notimestamps")
    generation.suppress_tokens = []
    generation.begin_suppress_tokens = []
    generation.alignment_heads = [[_DECODER_LAYERS - 1, head] for head in range(_LED_HEADS)]
    led = copy.deepcopy(model.config)
    led._attn_implementation = "eager"  # gives its weights
    for layer in model.model.decoder.layers:
        layer.encoder_attn.config = led
    return model


def encode(encoder: Any, mels: "torch.Tensor") -> "torch.Tensor":
    """The Whisper encoder on a window shorter than 30 s. (B,80,T) -> (B,T/2,D)."""
    from torch.nn.functional import gelu

    hidden = gelu(encoder.conv2(gelu(encoder.conv1(mels)))).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None, None)[0]
    normed: torch.Tensor = encoder.layer_norm(hidden)
    return normed


@dataclass(frozen=True)
class Batch:
    """Log-mel (B,80,T), tokens (B,L) padded with -100, phonemes (B,T/2).

    `focus` (B,L,2): the first and last position of the sound of every token; (0, -1) where there is none.
    """

    mels: "torch.Tensor"
    tokens: "torch.Tensor"
    phonemes: "torch.Tensor"
    focus: "torch.Tensor"


def batches(tokens: Tokens, *, seed: int, steps: int) -> Iterator[Batch]:
    """The batches of a whole training, in order."""
    import numpy as np
    import torch
    from whisperx.audio import log_mel_spectrogram

    torch.set_num_threads(1)
    plan = [next((count, want) for until, count, want in _LESSONS if step < until * steps) for step in range(steps)]
    wanted = itertools.chain.from_iterable(itertools.repeat(want, count) for count, want in plan)
    stream = windows(speakers=TRAINING_SPEAKERS, seed=seed, wanted=wanted)
    for count, want in plan:
        chosen = list(itertools.islice(stream, count))
        size = int(want.limit_s * SAMPLE_RATE_HZ)
        mels = torch.stack(
            [log_mel_spectrogram(w.samples, n_mels=N_MELS, padding=size - len(w.samples)) for w in chosen]
        )
        rows = [torch.tensor(tokens.sequence(window)) for window in chosen]
        focus = torch.tensor([0, -1]).repeat(len(rows), max(map(len, rows)), 1)
        for row, window in zip(focus, chosen, strict=True):
            if window.text:
                placed = torch.tensor(tokens.focus(window))
                row[4 : 4 + len(placed)] = placed
        yield Batch(
            mels=mels,
            tokens=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100),
            phonemes=torch.stack(
                [torch.from_numpy(np.pad(w.phonemes, (0, size // FRAME - len(w.phonemes))).astype(int)) for w in chosen]
            ),
            focus=focus,
        )


def _ahead(made: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, made in one process beside this one."""
    from torch.utils.data import DataLoader, IterableDataset

    class Stream(IterableDataset[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            return made

    return iter(DataLoader(Stream(), batch_size=None, num_workers=1, prefetch_factor=4))


def train(*, seed: int, steps: int, folder: Path, threads: int) -> None:
    """Train and export to `folder`, now and then on the way and at the end."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    tokens = Tokens(tokenizer())
    model = build(tokens)
    aside = torch.nn.Linear(_D_MODEL, 1 + len(phoneme_numbers()))
    parameters = [p for p in [*model.parameters(), *aside.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    log.info("%.2f million parameters", sum(p.numel() for p in model.parameters()) / 1e6)
    shown = torch.zeros(5)
    for step, batch in enumerate(_ahead(batches(tokens, seed=seed, steps=steps)), 1):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps)
        heard = encode(model.model.encoder, batch.mels)
        given, wanted = batch.tokens[:, :-1].clamp(min=0), batch.tokens[:, 1:]
        decoded = model.model.decoder(input_ids=given, encoder_hidden_states=heard, output_attentions=True)
        guesses = model.proj_out(decoded.last_hidden_state)
        text_loss = _text_loss(guesses, wanted)
        phoneme_loss = cross_entropy(aside(heard).flatten(0, 1), batch.phonemes.flatten())
        led_loss = attention_loss(decoded.cross_attentions, batch.focus[:, 1:])
        torch.autograd.backward(text_loss + _PHONEME_WEIGHT * phoneme_loss + _ATTENTION_WEIGHT * led_loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            right = guesses.argmax(-1) == wanted
            means = [text_loss, phoneme_loss, led_loss, right[wanted >= 0].float().mean(), right[:, 0].float().mean()]
            shown += torch.tensor([float(mean) for mean in means]) / _SHOW_EVERY
        if step % _SHOW_EVERY == 0:
            log.info(
                "step %d: text %.3f, phonemes %.3f, attention %.3f, tokens right %.3f, languages right %.3f",
                step,
                *shown.tolist(),
            )
            shown.zero_()
        if step % _SAVE_EVERY == 0 or step == steps:
            export(model, tokens, folder)


def _text_loss(guesses: "torch.Tensor", wanted: "torch.Tensor") -> "torch.Tensor":
    """Cross-entropy of (B,L,V) against (B,L), where -100 is padding."""
    import torch
    from torch.nn.functional import cross_entropy

    each = cross_entropy(guesses.transpose(1, 2), wanted, label_smoothing=0.05, reduction="none")
    weight = (wanted >= 0).float()
    weight[:, [0, 3]] *= _FIRST_WEIGHT  # the language; the first word, after the task and "no timestamps"
    return torch.as_tensor((each * weight).sum() / weight.sum())


def attention_loss(attentions: Sequence["torch.Tensor"], focus: "torch.Tensor") -> "torch.Tensor":
    """Minus the log of the weight that the led heads give to the sound of the token; (B,H,L,T) per layer, (B,L,2)."""
    import torch

    at = torch.arange(attentions[0].shape[-1])
    first, last = focus[..., :1] - _LED_MARGIN, focus[..., 1:] + _LED_MARGIN
    wanted = ((at >= first) & (at <= last)).unsqueeze(1)
    known = focus[..., 1] >= 0
    losses = [
        -((weights[:, :_LED_HEADS] * wanted).sum(-1) + 1e-3).log().mean(1)[known].mean()
        for weights in attentions
        if known.any()
    ]
    return torch.stack(losses).mean() if losses else attentions[0].new_zeros(())


def _rate(step: int, steps: int) -> float:
    if step < _WARMUP:
        return _PEAK_RATE * step / _WARMUP
    return _PEAK_RATE * max(0.01, 0.5 + 0.5 * math.cos(math.pi * (step - _WARMUP) / (steps - _WARMUP)))


def export(model: Any, tokens: Tokens, folder: Path) -> None:
    """Write `model.bin`, `config.json`, `vocabulary.json`, `tokenizer.json`, `preprocessor_config.json`, whole."""
    from ctranslate2.converters import TransformersConverter
    from transformers import PreTrainedTokenizerFast

    preprocessor = {
        "chunk_length": 30, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": N_MELS,
        "hop_length": 160, "n_fft": 400, "n_samples": 480000, "nb_max_frames": 3000, "padding_side": "right",
        "padding_value": 0.0, "processor_class": "WhisperProcessor", "return_attention_mask": False,
        "sampling_rate": 16000,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        source, made = Path(scratch) / "transformers", Path(scratch) / "made"
        model.save_pretrained(source)
        tokens.text.save(str(source / "tokenizer.json"), pretty=False)
        marks = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
        PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"), **marks).save_pretrained(source)
        tokens.text.save(str(source / "tokenizer.json"), pretty=False)
        (source / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        TransformersConverter(str(source), copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(
            str(made), quantization="float16", force=True
        )
        # The converter finds the languages of OpenAI's tokenizers only.
        config = json.loads((made / "config.json").read_text())
        config["lang_ids"] = [tokens.id(language) for language in LANGUAGES]
        (made / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(made, folder)


def main() -> None:
    """Entry of `python -m stages.sample.train_whisper`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=_STEPS)
    parser.add_argument("--threads", type=int, default=1, help="of torch; another number, other last digits")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "whisper")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(seed=arguments.seed, steps=arguments.steps, folder=arguments.out, threads=arguments.threads)


if __name__ == "__main__":
    main()
