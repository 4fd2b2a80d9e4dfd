"""Which weights there are by name: where each comes from, how large it is, and under which licence."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Weights that come with the package, trained on rendered people and espeak-ng voices by `maker`."""

    folder: str
    about: str
    size_mb: float
    maker: str
    licence: str = "as this project"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """Weights that another package brings along, which is installed with this one."""

    package: str
    file: str  # below the package's folder
    about: str
    size_mb: float
    licence: str


@dataclass(frozen=True, kw_only=True)
class WebFile:
    """One file on a web server. `unzip`: an archive; its members land flat in a folder of the entry's name."""

    url: str
    sha256: str | None
    about: str
    size_mb: float
    licence: str
    unzip: bool = False
    without: str = ""  # how to run without it, for the line that refuses a run


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A snapshot of a Hugging Face repository, at a fixed commit; or at "main", as it lay there when it was fetched."""

    repository: str
    revision: str
    about: str
    size_mb: float
    licence: str
    files: tuple[str, ...] = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
    without: str = ""

    @property
    def pinned(self) -> bool:
        """Whether the commit is fixed."""
        return self.revision != "main"


Entry: TypeAlias = Sample | Installed | WebFile | HubModel


def _whisper(size: str, revision: str, size_mb: float, owner: str = "Systran") -> HubModel:
    return HubModel(
        repository=f"{owner}/faster-whisper-{size}",
        revision=revision,
        about=f"Whisper {size} for CTranslate2",
        size_mb=size_mb,
        licence="MIT (OpenAI)",
    )


_UNALIGNED = "run with `--set speech.align=false`: words then have the coarser times of Whisper itself"

_OF_TORCHAUDIO = "https://download.pytorch.org/torchaudio/models/wav2vec2_"


def _torchaudio(file: str, sha256: str, language: str, licence: str = "CC BY-NC 4.0 (VoxPopuli)") -> WebFile:
    """A wav2vec 2.0 with a CTC head, as torchaudio publishes it: whisperx's choice for its language."""
    about = f"word times, {language}: wav2vec 2.0"
    url = _OF_TORCHAUDIO + file
    return WebFile(url=url, sha256=sha256, about=about, size_mb=378, licence=licence, without=_UNALIGNED)


def _wav2vec2(repository: str, language: str, licence: str, revision: str = "main", size_mb: float = 1262) -> HubModel:
    """A wav2vec 2.0 with a CTC head in transformers' form."""
    return HubModel(
        repository=repository,
        revision=revision,
        about=f"word times, {language}: wav2vec 2.0",
        size_mb=size_mb,
        licence=licence,
        # no `model.safetensors`: where there is one, it holds the same weights once more
        files=("config.json", "preprocessor_config.json", "pytorch_model.bin", "*token*.json", "vocab.json"),
        without=_UNALIGNED,
    )


_ALIGNERS: dict[str, Entry] = {
    "align-ar": _wav2vec2("jonatasgrosman/wav2vec2-large-xlsr-53-arabic", "Arabic", "Apache-2.0 (jonatasgrosman)"),
    "align-de": _torchaudio(
        "voxpopuli_base_10k_asr_de.pt", "5fcd937817d4cc358aa9730ccaa92cdae37af4b62959b67ba77ef1f5da7938cf", "German"
    ),
    "align-en": _torchaudio(
        "fairseq_base_ls960_asr_ls960.pth",
        "488fd4f16de84438ffc945334278c1b9fb9b7159a806c1080b16111a958c945d",
        "English",
        "MIT (fairseq)",
    ),
    "align-es": _torchaudio(
        "voxpopuli_base_10k_asr_es.pt", "272a92b156b78e697e6c7cf7c64f274250a36d0047440e27a895a377d3af818f", "Spanish"
    ),
    "align-fr": _torchaudio(
        "voxpopuli_base_10k_asr_fr.pt", "30eeb5e5000e011838a39328c21eadf5ddaedbef0ea3f7cf5a790fd8695b92b5", "French"
    ),
    "align-hr": _wav2vec2("classla/wav2vec2-xls-r-parlaspeech-hr", "Croatian", "see its page (CLASSLA)"),
    "align-pl": _wav2vec2(
        "jonatasgrosman/wav2vec2-large-xlsr-53-polish",
        "Polish",
        "Apache-2.0 (jonatasgrosman)",
        "6b1cea36bd8bc5f65ec8081667cd9c0207d51970",
    ),
    "align-ru": _wav2vec2("jonatasgrosman/wav2vec2-large-xlsr-53-russian", "Russian", "Apache-2.0 (jonatasgrosman)"),
    "align-th": _wav2vec2("airesearch/wav2vec2-large-xlsr-53-th", "Thai", "CC BY-SA 4.0 (AIResearch)"),
    "align-zh": _wav2vec2(
        "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn", "Chinese", "Apache-2.0 (jonatasgrosman)", size_mb=1276
    ),
}

ALIGNERS = {name.removeprefix("align-"): name for name in _ALIGNERS}
"""Forced aligners by language (a subtag): whisperx's own choices, and AIResearch's for Thai, where it has none."""

REGISTRY: dict[str, Entry] = {
    "sample/faces": Sample(
        folder="faces",
        about="SCRFD- and ArcFace-type ONNX for rendered faces",
        size_mb=1,
        maker="python -m stages.sample.train_faces",
    ),
    "sample/sync": Sample(
        folder="sync",
        about="narrow SyncNet for rendered faces",
        size_mb=2,
        maker="python -m stages.sample.train_sync",
    ),
    "sample/whisper": Sample(
        folder="whisper",
        about="Whisper-type CTranslate2 for espeak-ng voices",
        size_mb=4,
        maker="python -m stages.sample.train_whisper",
    ),
    "ppocr_v6_det": Installed(
        package="rapidocr",
        file="models/PP-OCRv6_det_small.onnx",
        about="PP-OCRv6: where text is in a picture",
        size_mb=10,
        licence="Apache-2.0 (PaddleOCR)",
    ),
    "buffalo_l": WebFile(
        url="https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip",
        sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        about="insightface pack: SCRFD-10G, ArcFace R50, landmarks",
        size_mb=289,
        licence="non-commercial research only (insightface)",
        unzip=True,
    ),
    "syncnet_v2": WebFile(
        url="https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
        sha256="961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
        about="SyncNet of Chung and Zisserman, 2016",
        size_mb=55,
        licence="research, CC BY (Oxford VGG)",
    ),
    "tiny": _whisper("tiny", "d90ca5fe260221311c53c58e660288d3deb8d356", 78),
    "base": _whisper("base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66", 148),
    "small": _whisper("small", "536b0662742c02347bc0e980a01041f333bce120", 486),
    "medium": _whisper("medium", "08e178d48790749d25932bbc082711ddcfdfbc4f", 1531),
    "large-v2": _whisper("large-v2", "f0fe81560cb8b68660e564f55dd99207059c092e", 3090),
    "large-v3": _whisper("large-v3", "edaa852ec7e145841d8ffdb056a99866b5f0a478", 3091),
    "large-v3-turbo": _whisper(
        "large-v3-turbo", "0c94664816ec82be77b20e824c8e8675995b0029", 1622, owner="mobiuslabsgmbh"
    ),
    **_ALIGNERS,
}
"""All weights by name. Digests and commits are those that their publishers serve."""
