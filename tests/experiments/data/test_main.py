"""The command `python -m experiments.data`."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.data.__main__ import main

REPO = Path(__file__).resolve().parents[3]


def test_command_lists(copied, capsys, read):
    assert main(["--data_dir", str(copied)]) == 0
    out = capsys.readouterr().out
    assert "train 60000, test 10000, labels 0 to 9, training mean 0.1307" in out
    assert "mini_digits:1.0.0\n  prepared, not read yet" in out
    assert main(["list", "mini_digits", "--data_dir", str(copied)]) == 0
    assert "images 9 x 7, train 26, test 8" in capsys.readouterr().out
    assert main(["--data_dir", str(copied)]) == 0
    assert read(copied).sha256 in capsys.readouterr().out
    (copied / "mini_digits/1.0.0/features.json").unlink()
    assert main(["--data_dir", str(copied)]) == 1
    assert "not those of the first read" in capsys.readouterr().err


def test_command_lists_paths_and_prepares(tfds, tmp_path, capsys, write_idx):
    assert main(["list", "digits", "--path", write_idx(tmp_path)]) == 0
    assert "images 6 x 5, train 40, test 10" in capsys.readouterr().out
    data_dir = str(tmp_path / "new" / "dir")
    assert main(["prepare", "mini_digits", "--data_dir", data_dir]) == 0
    assert "images 9 x 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["prepare"],
        ["--no_such_flag"],
        ["--path", "x", "--data_dir", "y"],
        ["--path", "/nowhere/at/all"],
        ["list", "mnist", "--data_dir", "/nowhere"],
    ],
)
def test_command_refuses_in_one_line(argv, capsys):
    code = main(argv)
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: ")


def test_command_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "prepare fashion_mnist" in capsys.readouterr().out


def test_command_as_a_program():
    command = [sys.executable, "-m", "experiments.data", "--path", "/nowhere"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: /nowhere does not exist" in done.stderr
    assert done.stderr.count("\n") == 1
