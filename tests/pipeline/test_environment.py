"""The locked environment is made once, whatever broke off before."""

import subprocess
import sys

import pytest

from pipeline import environment


def test_a_download_that_breaks_off_is_tried_again(tmp_path):
    line = f"import os, sys; os.mkdir('{tmp_path}/' + str(n := len(os.listdir('{tmp_path}')))); sys.exit(n < 2)"
    environment._run([sys.executable, "-c", line], tries=3)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_fails_every_time_ends_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        environment._run([sys.executable, "-c", "raise SystemExit(3)"], tries=2)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: setting up failed (exit 3): ")


@pytest.mark.parametrize("broken", [False, True])
def test_an_environment_whose_making_was_broken_off_is_made_anew(broken, tmp_path, monkeypatch):
    place, ran = tmp_path / ".venv", []
    if broken:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    monkeypatch.setattr(environment, "_run", lambda command, *_, **__: ran.append(command))
    environment._make(place, place / "bin" / "python")
    assert ran[0][1:] == ["-m", "venv", "--clear", str(place)]
    assert [command[1:3] for command in ran[1:]] == [["-m", "pip"], ["pip", "install"], ["pip", "install"]]
