"""`experiments.reconstruct`: what it refuses, in one line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from reconstructed import HEIGHT, WIDTH, command

from experiments import reconstruct
from experiments.reports.restoration import METHODS
from experiments.restoration.tasks import TASKS

# optax.nadam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("cache", "standard_promotion")


def refused(capsys, arguments: list[str], code: int = 1) -> str:
    assert reconstruct.main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--task=sharpen"], "'sharpen' is none of inpaint, denoise, superresolve"),
        (["--methods=magic"], "'magic' is none of mean, nearest"),
        (
            ["--mask=halves"],
            "--mask=halves: expected half, quadrant, quadrants, random",
        ),
        (["--mask=random:2"], "--mask=random:2: '2' is not between 0 and 1"),
        (["--mask=half,,quadrant"], "empty word"),
        (["--flip=0.7"], "argument --flip: '0.7' is not numbers between 0 and 0.5"),
        (["--flip=some"], "argument --flip: 'some' is not numbers"),
        (["--noise=0"], "argument --noise: '0' is not numbers between 0 and 10"),
        (["--factor=1"], "--factor=1: expected from 2 to 12"),
        (["--factor=13"], "--factor=13: expected from 2 to 12"),
        (["--factor=half"], "--factor"),
        (["--steps=100"], "argument --steps: 100 is no power of two"),
        (["--steps=4"], "argument --steps: 4 is no power of two from 8 on"),
        (["--chains=3"], "argument --chains: 3 is below 4"),
        (["--temperatures=2"], "argument --temperatures: 2 is below 3"),
        (["--damaged"], "--damaged is of --images"),
        (["--images=none.png"], "none.png does not exist"),
        (["--step=first"], "expected last, best or a number"),
        (["--devices=99"], "--devices=99, expected at most 8"),
        (["--shown=0"], "--shown"),
        (["--speed=9"], "unrecognized arguments: --speed=9"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(workdir, tmp_path, capsys, flags, said):
    arguments = command(workdir, tmp_path / "out")
    assert said in refused(capsys, arguments + flags)
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_workdir_that_is_none_is_refused(workdir, tmp_path, capsys):
    none = command(tmp_path / "none", tmp_path / "out")
    assert "none is not a directory" in refused(capsys, none)
    empty = command(tmp_path, tmp_path / "out")
    assert "holds no run" in refused(capsys, empty)
    assert "no checkpoint" in refused(
        capsys, [*command(workdir, tmp_path / "out"), "--step=3"], 3
    )


def test_files_of_another_size_are_refused(workdir, tmp_path, capsys):
    Image.fromarray(np.eye(WIDTH, HEIGHT, dtype=bool)).save(tmp_path / "turned.png")
    arguments = command(workdir, tmp_path / "out", task="inpaint")
    said = refused(capsys, [*arguments, f"--mask={tmp_path / 'turned.png'}"])
    assert "12 x 14 pixels, expected 14 x 12" in said
    said = refused(capsys, [*arguments, f"--images={tmp_path / 'turned.png'}"])
    assert "12 x 14" in said
    assert "14 x 12" in said.partition("expected")[2]


def test_grey_pixels_under_a_bernoulli_are_refused(workdir, tmp_path, capsys):
    grey = shutil.copytree(workdir, tmp_path / "grey")
    config = json.loads((grey / "config.json").read_text())
    config["data"]["binarization"] = "grey"
    (grey / "config.json").write_text(json.dumps(config))
    said = refused(capsys, command(grey, tmp_path / "out"))
    assert "grey pixels under a Bernoulli" in said
    assert "--config.data.binarization=dynamic" in said


def test_a_run_without_an_encoder_is_refused(
    workdir, opened, tmp_path, capsys, monkeypatch
):
    program = opened.program._replace(has_encoder=False)
    monkeypatch.setattr(
        reconstruct, "load_run", lambda *_, **__: opened._replace(program=program)
    )
    said = refused(capsys, command(workdir, tmp_path / "out"))
    assert "MCEM" in said
    assert "--config.algorithm=aevb" in said


def test_help_tells_of_every_task_and_method(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # a word with a hyphen may be broken there
    with pytest.raises(SystemExit) as info:
        reconstruct.main(["--help"])
    assert info.value.code == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    for word in (*TASKS, *METHODS):
        assert word in words
