"""A Whisper of random weights in CTranslate2's form: all hundred languages, few words."""

import json
from pathlib import Path

import torch
import transformers
from ctranslate2.converters import TransformersConverter
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers.models.whisper.tokenization_whisper import LANGUAGES


def tokenizer(languages: list[str]) -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(a, b) for a in letters for b in letters][:500]
    vocabulary = {token: number for number, token in enumerate([*letters, *(a + b for a, b in pairs), ""])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev"]
    special += ["nospeech", "notimestamps"]
    made.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in special])
    made.add_tokens([AddedToken(f"<|{number * 0.02:.2f}|>") for number in range(1501)])
    return made


def make(folder: Path, *, languages: list[str] | None = None, seed: int = 0, bands: int = 80) -> Path:
    """Write the model to a folder and return it; `languages` are Whisper's codes, by default all of its own."""
    languages = languages or list(LANGUAGES)
    text = tokenizer(languages)
    end = text.token_to_id("<|endoftext|>")
    config = transformers.WhisperConfig(
        vocab_size=text.get_vocab_size(), num_mel_bins=bands, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        decoder_start_token_id=text.token_to_id("<|startoftranscript|>"),
        pad_token_id=end, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config.alignment_heads = [[0, 0]]
    model.generation_config.suppress_tokens = []
    model.generation_config.begin_suppress_tokens = []
    source = folder / "transformers"
    model.save_pretrained(source)
    text.save(str(source / "tokenizer.json"))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=text, bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>"
    ).save_pretrained(source)
    (source / "preprocessor_config.json").write_text(json.dumps({"feature_size": bands, "sampling_rate": 16000}))
    made = folder / "ctranslate2"
    TransformersConverter(str(source), copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(str(made))
    settings = json.loads((made / "config.json").read_text())
    settings["lang_ids"] = [text.token_to_id(f"<|{language}|>") for language in languages]
    (made / "config.json").write_text(json.dumps(settings))
    return made
