"""Face packs that cannot be used: one line that says why."""

import shutil

import pytest

from mcdm.identity import FacePack
from stages import weights


@pytest.mark.parametrize("content", [b"", b"hello world, not a network", "half"])
def test_a_damaged_network_is_one_line(tmp_path, content):
    packaged = next(weights.path("sample/faces").glob("*.onnx")).read_bytes()
    (tmp_path / "x.onnx").write_bytes(packaged[: len(packaged) // 2] if content == "half" else content)
    with pytest.raises(ValueError) as caught:
        FacePack(str(tmp_path))
    said = str(caught.value)
    assert said.startswith(f"--face-pack {tmp_path}: ") and "x.onnx" in said and "\n" not in said


@pytest.mark.parametrize(("kept", "missing"), [("rec*", "detector"), ("det*", "recogniser")])
def test_a_pack_that_lacks_one_of_its_two_networks_is_one_line(tmp_path, kept, missing):
    for file in weights.path("sample/faces").glob(f"{kept}.onnx"):
        shutil.copy(file, tmp_path)
    with pytest.raises(ValueError, match=f"^--face-pack .*: no {missing} in {tmp_path}$"):
        FacePack(str(tmp_path))
