"""The command line: one clear line for every mistake, before anything is compiled."""

import argparse
import os
import re
import subprocess
import sys

import pytest

from experiments import arguments, cli, verify
from experiments.errors import (
    CheckpointError,
    ConfigError,
    DivergenceError,
    StoppedError,
    WorkdirError,
)
from experiments.storage.lock import locked

# ml_collections loads a config file in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def parse(*arguments: str):
    return cli.parse(["mnist", *arguments], config_file="smoke.py")


def test_fields_and_workdir_are_read():
    config, workdir = parse(
        "--config.epochs=1e3",
        "--config.hidden_dims=(20, 10)",
        "--config.learning_rate=1e-2",
        "--config.output_bias_from_data=False",
        "--config.data.name=digits",
        "--workdir=somewhere",
    )
    assert (config.epochs, config.hidden_dims) == (1000, (20, 10))
    assert (config.learning_rate, config.output_bias_from_data) == (0.01, False)
    assert (config.data.name, workdir) == ("digits", "somewhere")


def test_a_config_file_with_an_argument():
    file = str(cli.CONFIGS / "paper.py")
    assert parse(f"--config={file}:nz=3")[0].latent_dim == 3
    assert parse("--config", f"{file}:nz=3", "--config.seed=5")[0].seed == 5


BAD = {
    "--config.learning_rate=nan": "learning_rate is nan, expected a finite number",
    "--config.learning_rate=inf": "expected a finite number",
    "--config.learning_rate=-1": "greater than 0",
    "--config.learning_rate=fast": "learning_rate.*fast",
    "--config.learning_rate=": "learning_rate",
    "--config.learning_rate": "learning_rate",
    "--config.epochs=2.5": "epochs.*2.5",
    "--config.epochs=-3": "epochs is -3, expected at least 0",
    "--config.epochs=many": "epochs.*many",
    "--config.epochs=1e-3": "epochs.*1e-3",
    "--config.epochs=nan": "epochs.*nan",
    "--config.epochs=None": "epochs.*None",
    "--config.hidden_dims=(500,": "hidden_dims",
    "--config.hidden_dims=(500, 0)": "widths of at least 1",
    "--config.hidden_dims=(500, 2.5)": "hidden_dims",
    "--config.hidden_dims=wide": "hidden_dims.*wide",
    "--config.output_bias_from_data=maybe": "output_bias_from_data",
    "--config.estimator=elbo": "one of sgvb_a",
    "--config.latentdim=5": "no field latentdim, did you mean latent_dim",
    "--config.data.nmae=mnist": "no field data.nmae, did you mean data.name",
    "--config.num_points=5": "no field num_points, did you mean eval.num_points",
    "--config.data=mnist": "no field data, did you mean .* or data.name or ",
    "--config.data.name.first=mnist": "no field data.name.first",
    "--config.zzz=1": r"no field zzz \(--help",
    "--config.checkpoint.every=0": "checkpoint.every is 0, expected at least 1",
    "--config.checkpoint.keep=0": "checkpoint.keep is 0, expected at least 1",
    "--config.train_samples=100": "exactly one of them",
    "--config.likelihood=gaussian": "data.binarization=grey",
    "--config=no_such_file.py": "config file.*no_such_file.py",
    "--config=": "config",
    "--config": "config",
    "--epochs=5": "epochs",
    "epochs=5": "unexpected argument 'epochs=5': set fields as --config.name=value",
    "--workdir": "workdir",
}


@pytest.mark.parametrize("argument", BAD)
def test_a_bad_argument_is_one_clear_line(argument, capfd):
    code = cli.exit_codes(lambda: parse(argument))
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    with pytest.raises(ConfigError, match=BAD[argument]):
        parse(argument)


def test_a_field_that_does_not_exist_is_named_without_escapes(capfd):
    assert cli.exit_codes(lambda: parse("--config.latnet_dim=3")) == 1
    assert capfd.readouterr().err == (
        "error: --config.latnet_dim=3: there is no field latnet_dim, did you mean "
        "latent_dim? (--help lists the fields)\n"
    )


def test_a_right_field_beside_a_wrong_value_is_not_called_wrong():
    for right in ("--config.seed=3", "--config.data.name=mnist", "--config.seed"):
        with pytest.raises(ConfigError, match="many") as error:
            parse("--config.epochs=many", right)
        assert "no field" not in str(error.value)


def test_fields_before_their_config_file_are_refused():
    with pytest.raises(ConfigError, match="before a value for --config"):
        parse("--config.seed=5", f"--config={cli.CONFIGS / 'smoke.py'}")


FILES = {
    "def get_config(:\n": r"config file .*bad\.py, line 1: ",
    "x = 1\n": "get_config",
    "def get_config():\n    return None\n": "returns no configuration",
    "def get_config():\n    return {'latent_dim': 3}\n": "returns no configuration",
    "import no_such_module\n": "no_such_module",
    "def get_config():\n    raise RuntimeError('this one')\n": "this one",
    "def get_config():\n    raise ValueError('this one')\n": "config file: .*this one",
    "def get_config():\n    return 1 / 0\n": "division by zero",
    "def get_config():\n    return {}['this one']\n": "this one",
    "\0": "null bytes",
}


@pytest.mark.parametrize("text", FILES)
def test_a_bad_config_file_is_one_clear_line(text, tmp_path, monkeypatch):
    # ml_collections loads every file as one module, over the one before.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=FILES[text]) as error:
        parse(f"--config={file}")
    assert "\n" not in str(error.value)


def test_a_bad_config_argument_says_what_the_file_knows():
    message = r"^the config file: config argument 'n=3' .*nz=20"
    with pytest.raises(ConfigError, match=message):
        parse(f"--config={cli.CONFIGS / 'paper.py'}:n=3")
    with pytest.raises(ConfigError, match="config file"):
        parse(f"--config={cli.CONFIGS / 'smoke.py'}:n=3")


def test_errors_have_their_exit_codes(capsys):
    def fails(error: Exception):
        def run():
            raise error

        return cli.exit_codes(run)

    assert cli.exit_codes(lambda: None) == 0
    assert fails(WorkdirError("of\nthe disk")) == 1
    assert fails(DivergenceError("at step 3")) == 2
    assert fails(CheckpointError("none")) == 3
    assert fails(StoppedError()) == 75
    assert capsys.readouterr().err.splitlines() == [
        "error: of the disk",
        "error: at step 3",
        "error: none",
        "stopped and saved: the same command goes on from here",
    ]


def parser() -> arguments.Parser:
    parser = arguments.Parser(prog="command", description="First.\n\n    indented")
    parser.add_argument("--number", type=arguments.count)
    parser.add_argument("--size", type=arguments.positive)
    return parser


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--number=-1", "argument --number: '-1' is not a whole number, 0 or more"),
        ("--number=1.5", "argument --number: '1.5' is not a whole number, 0 or more"),
        ("--number=", "argument --number: '' is not a whole number, 0 or more"),
        ("--size=0", "argument --size: '0' is not a whole number, 1 or more"),
        ("--size=many", "argument --size: 'many' is not a whole number, 1 or more"),
        ("--none", "unrecognized arguments: --none"),
    ],
)
def test_a_bad_argument_of_a_command_is_one_line(argument, message, capfd):
    assert cli.exit_codes(lambda: parser().parse_args([argument])) == 1
    assert capfd.readouterr() == ("", f"error: {message} (see --help)\n")


def test_whole_numbers_of_a_command():
    found = parser().parse_args(["--number=0", "--size=12"])
    assert found == argparse.Namespace(number=0, size=12)
    assert "\n    indented\n" in parser().format_help()


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull", "-help", "--help=x"])
def test_help_lists_every_field(flag, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mnist", flag])
    with pytest.raises(SystemExit) as stopped:
        cli.main(lambda *_: None, config_file="smoke.py", usage="What it is.")
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("What it is.")
    assert re.search(r"--config.latent_dim = \d+  # N_z", out)
    assert "--config.checkpoint.every" in out


def test_verify_refuses_what_is_no_directory(tmp_path):
    command = [sys.executable, "-m", "experiments.verify", f"--workdir={tmp_path}/none"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "is not a directory" in done.stderr
    assert done.stderr.count("\n") == 1
    assert verify.main([f"--workdir={tmp_path}"]) == 1


def test_the_command_refuses_before_it_compiles():
    command = [sys.executable, "-m", "experiments.mnist", "--config.epochs=-1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    expected = "error: config.epochs is -1, expected at least 0\n"
    assert (done.stdout, done.stderr) == ("", expected)


def test_a_second_process_is_refused_before_jax_is_imported(tmp_path):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['mnist', '--workdir={tmp_path}']\n"
        "try:\n"
        "    runpy.run_module('experiments.mnist', run_name='__main__')\n"
        "finally:\n"
        "    print('jax' in sys.modules)\n"
    )
    with locked(tmp_path):
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
    assert found.returncode == 1
    assert found.stdout == "False\n"
    assert f"is in use by process {os.getpid()} on " in found.stderr
    assert found.stderr.count("\n") == 1
