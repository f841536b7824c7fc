"""A sweep: which runs are lanes, and that each lane is its single run."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import tracked
from configurations import flags, small
from jax import export

from experiments import data, mnist, sweep
from experiments.errors import ConfigError, StoppedError, WorkdirError
from experiments.evaluation.verdict import describe
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.program import build
from experiments.storage.checkpoints import Checkpoints
from experiments.sweeps import grid, lanes, sizing
from experiments.sweeps.runner import Sweep, train
from experiments.trackers.process import copied
from experiments.training import epochs
from experiments.training.loop import start
from experiments.training.opened import load_run
from experiments.verify import verify

pytestmark = [
    pytest.mark.usefixtures("cache"),
    # optax.adam raises a float to an integer power.
    pytest.mark.usefixtures("standard_promotion"),
    # ml_collections' config files.
    pytest.mark.filterwarnings("ignore:the load_module"),
]

SHORT = {"optimizer_args": "b1=0.9", "weight_prior": 1.0, "epochs": 10}  # of 10 steps


def expand(overrides: list[dict], **changes: object) -> list[grid.Run]:
    return grid.expand(small(**{**SHORT, **changes}), overrides)


def small_sweep(*arguments: str, **changes: object) -> Sweep:
    return sweep.parse(["sweep", *flags(**{**SHORT, **changes}), *arguments])


@pytest.fixture(scope="module")
def program():
    [run] = expand([{"seed": 0}])
    return build(run.config, data.load(num_train=320, num_valid=100, num_test=40))


# ---- what is swept ----


def test_flags_are_a_product_with_the_last_one_fastest():
    found = small_sweep("--sweep.learning_rate=1e-3,3e-3", "--sweep.config.seed=4:6")
    assert found.fields == ["learning_rate", "seed"]
    assert [run.name for run in found.runs] == [
        "learning_rate=0.001,seed=4",
        "learning_rate=0.001,seed=5",
        "learning_rate=0.003,seed=4",
        "learning_rate=0.003,seed=5",
    ]
    assert found.runs[2].config.learning_rate == 3e-3
    assert found.runs[2].config.seed == 4
    assert found.runs[2].config.hidden_dims == (8,)


def test_widths_have_commas_of_their_own():
    found = small_sweep("--sweep.hidden_dims=(200,),(500, 500)")
    assert [run.config.hidden_dims for run in found.runs] == [(200,), (500, 500)]


def test_an_argument_of_the_optimizer_is_a_field():
    found = small_sweep("--sweep.optimizer_args.b1=0.5,0.95")
    assert [run.config.optimizer_args for run in found.runs] == ["b1=0.5", "b1=0.95"]


def test_a_file_gives_any_list(tmp_path):
    path = tmp_path / "grid.py"
    path.write_text("def get_sweep():\n  return [{'seed': 3}, {'latent_dim': 5}]\n")
    found = small_sweep(f"--sweep={path}")
    assert [run.overrides for run in found.runs] == [{"seed": 3}, {"latent_dim": 5}]
    path.write_text("def get_sweep():\n  return 3\n")
    with pytest.raises(ConfigError, match="no list"):
        small_sweep(f"--sweep={path}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is swept"),
        (["--sweep.seed="], "one value or more"),
        (["--sweep.seed=0,0"], "there twice"),
        (["--sweep.seed=1", "--sweep.seed=2"], "given twice"),
        (["--sweep.sede=1"], "sede"),
        (["--sweep.learning_rate=-1"], "learning_rate is -1.0, expected greater"),
        (["--sweep.optimizer_args.b3=0.5"], "optax.adam does not take"),
        (["--sweep.seed=1", "--lanes=many"], "expected a whole number"),
        (["--sweep.seed=1", "--sweep=grid.py"], "one or the other"),
        (["--sweep=no_such_file.py"], "no_such_file.py"),
        (["--sweep.seed=1", "--config.eval.std_error=0.1"], "set config.eval.num_poi"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        small_sweep(*arguments)
    assert "\n" not in str(error.value)


def test_what_is_compiled_apart_and_what_is_a_lane():
    runs = expand(
        [
            {"seed": 1},
            {"seed": 2, "learning_rate": 0.5},
            {"weight_prior": 0.1},
            {"beta": 4.0},
            {"optimizer_args.b1": 0.5},
            {"latent_dim": 3},
            {"weight_prior": 0.0},
            {"estimator": "sgvb_a"},
            {"latent_dim": 3, "seed": 9},
        ]
    )
    names = [[run.name for run in group] for group in grid.groups(runs)]
    assert names == [
        [
            "seed=1",
            "seed=2,learning_rate=0.5",
            "weight_prior=0.1",
            "beta=4.0",
            "optimizer_args.b1=0.5",
        ],
        ["latent_dim=3", "latent_dim=3,seed=9"],
        ["weight_prior=0.0"],
        ["estimator=sgvb_a"],
    ]


# ---- a lane is a run ----

DIFFERENT = [
    {"seed": 0, "learning_rate": 1e-3},
    {"seed": 1, "learning_rate": 3e-3},
    {"seed": 2**32 - 1, "weight_prior": 0.3},
    {"seed": 0, "optimizer_args.b1": 0.5, "beta": 2.0},
]


@pytest.fixture(scope="module")
def single_runs(program, cache) -> list:
    """(initial state, final state) of each run by itself."""
    found = []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for run in expand(DIFFERENT):
            own = build(
                run.config, data.load(num_train=320, num_valid=100, num_test=40)
            )
            first = epochs_start(run, own)
            advance = epochs.resident(run.config, own, None, first)
            initial, state = jax.device_get(first), first
            for _ in range(own.num_epochs):
                state = advance(state).state
            assert int(state.step) == 100
            found.append((initial, jax.device_get(state)))
    return found


def epochs_start(run: grid.Run, own):
    return jax.jit(partial(start, run.config, own))()


@pytest.mark.default_flags
@pytest.mark.parametrize("num_devices", [1, 8])
def test_every_lane_is_its_single_run(num_devices, program, single_runs, tmp_path):
    """Bit for bit at the start; after 100 steps to 1e-5 of each leaf's largest."""
    runs = expand(DIFFERENT)
    mesh = distributed.mesh("lane", num_devices)
    initial = jax.device_get(
        jax.jit(partial(lanes.start, program))(lanes.Lanes.of(runs))
    )
    trainer = lanes.Trainer(runs[0].config, program, mesh, len(runs))
    found = lanes.train_lanes(trainer, runs, tmp_path, StopRequest(), ignore, ignore)
    assert found.diverged == [0] * len(runs)
    for i, (first, last) in enumerate(single_runs):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], initial)
        jax.tree.map(np.testing.assert_array_equal, own, first)
        own = jax.tree.map(lambda leaf, i=i: leaf[i], found.state)
        assert_close(own.params, last.params)


def ignore(*_: object) -> None:
    pass


def assert_close(one: object, other: object) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(b)))


def test_a_lane_that_diverges_disturbs_no_other(program, tmp_path):
    sound = expand([{"seed": 0}, {"seed": 1}], epochs=2)
    runs = [*sound, *expand([{"learning_rate": 1e30}], epochs=2)]
    short = program._replace(num_epochs=2)
    mesh = distributed.mesh("lane", 1)
    trainer = lanes.Trainer(runs[0].config, short, mesh, 3)
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    arguments = (StopRequest(), ignore, ignore)
    found = lanes.train_lanes(trainer, runs, tmp_path / "with", *arguments)
    assert found.diverged == [0, 0, 1]
    assert found.lines[2] == []
    # The same program, with the sound lane again in the third place.
    alone = lanes.train_lanes(trainer, sound, tmp_path / "without", *arguments)
    for i in range(2):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a[i], b[i]),
            found.state,
            alone.state,
        )
    assert found.lines[:2] == alone.lines


def test_lanes_lower_for_tpu_and_cuda_without_the_host_or_a_collective(program):
    runs = expand([{"seed": i} for i in range(8)])
    mesh = distributed.mesh("lane", 8)
    epoch = lanes.by_lane(mesh, partial(lanes.one_epoch, program, 32), shared=1)
    own = lanes.Lanes.of(runs)
    state = jax.eval_shape(partial(lanes.start, program), own)
    images = jax.ShapeDtypeStruct(program.train.shape, np.uint8)
    exported = export.export(epoch, platforms=["tpu", "cuda"])(own, state, images)
    text = exported.mlir_module()
    assert "callback" not in text
    for word in ("all_reduce", "all_gather", "all_to_all", "collective_permute"):
        assert word not in text
    for host in ("infeed", "outfeed", "stablehlo.send", "stablehlo.recv"):
        assert host not in text


def test_lanes_are_bounded_by_memory(program, monkeypatch):
    runs = expand([{"seed": i} for i in range(12)])
    mesh = distributed.mesh("lane", 2)
    state = jax.eval_shape(partial(lanes.start, program), lanes.Lanes.of(runs[:1]))
    state_bytes = sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
    )
    lane_bytes = sizing.lane_bytes(runs, program)
    assert lane_bytes > state_bytes
    assert sizing.lanes_that_fit(runs, program, mesh) == 6  # all runs, on two devices
    # Process 0 holds all lanes in a quarter of its memory: 4 lanes, 2 on each device.
    monkeypatch.setattr(sizing, "lane_bytes", lambda *_: 1)
    monkeypatch.setattr(sizing, "_host_bytes", lambda: 16 * state_bytes)
    assert sizing.lanes_that_fit(runs, program, mesh) == 2
    # Room on each device, in half of the memory: 3 lanes beside the data.
    memory = 4 * (3.5 * 10**9 + program.train.nbytes) / 0.8
    monkeypatch.setattr(sizing, "_host_bytes", lambda: int(memory))
    monkeypatch.setattr(sizing, "lane_bytes", lambda *_: 10**9)
    assert sizing.lanes_that_fit(runs, program, mesh) == 3
    monkeypatch.setattr(sizing, "lane_bytes", lambda *_: 10**15)
    assert sizing.lanes_that_fit(runs, program, mesh) == 1
    assert sizing.lanes_at_once(runs, program, mesh) == 2


# ---- a whole sweep ----

ARGUMENTS = ("--sweep.latent_dim=2,3", "--sweep.seed=0:4")
LENGTH = {"epochs": 3, "checkpoint.every": 1}


def whole(workdir: Path, stop: StopRequest, num_devices: int = 1) -> list[dict]:
    asked = small_sweep(*ARGUMENTS, "--lanes=2", **LENGTH)
    return train(asked._replace(num_devices=num_devices), workdir, stop)


def numbers(rows: list[dict]) -> list[dict]:
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache, drawn) -> tuple[Path, list[dict]]:
    from experiments.reports.sweep import write_sweep_report

    workdir = tmp_path_factory.mktemp("sweep") / "whole"
    workdir.mkdir()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        rows = whole(workdir, StopRequest())
        asked = small_sweep(*ARGUMENTS, **LENGTH)
        write_sweep_report(asked.runs, asked.fields, rows, workdir)
    return workdir, rows


def test_there_is_a_row_a_run_as_json_and_csv(finished):
    workdir, rows = finished
    assert [(row["latent_dim"], row["seed"]) for row in rows] == [
        (dim, seed) for dim in (2, 3) for seed in range(4)
    ]
    lines = (workdir / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    with (workdir / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for name in ("status", "train_bound", "valid_bound", "test_bound", "seconds"):
        assert [row[name] for row in table] == [str(row[name]) for row in rows]
    for row in rows:
        assert row["status"] == "done"
        assert row["log_likelihood"] > row["test_bound"] - 30
    page = (workdir / "report.html").read_text()
    for picture in ("learning_curves", "latent_dim", "seed"):
        assert (workdir / "figures" / f"{picture}.png").stat().st_size > 1000
    assert "Settings by valid bound" in page
    assert page.count("data:image/png;base64,") == 3


def test_every_run_opens_as_a_single_run_does(finished):
    workdir, rows = finished
    for row in rows[:5:4]:
        folder = workdir / "runs" / row["run"]
        findings, code = verify(folder)
        assert code == 0, findings
        opened = load_run(folder)
        assert opened.config.latent_dim == row["latent_dim"]
        assert opened.step == 30
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["valid/bound"] == row["valid_bound"]


def test_a_tracker_gets_every_run(finished, fake, tmp_path):
    workdir, rows = finished
    folder = shutil.copytree(workdir, tmp_path / "grid")
    with copied("wandb", folder):
        pass
    calls = fake.calls("init")
    assert [call[2]["name"] for call in calls] == [row["run"] for row in rows]
    assert {call[2]["group"] for call in calls} == {"grid"}
    folders = [folder / "runs" / row["run"] for row in rows]
    assert fake.rows() == [line for own in folders for line in tracked.lines(own)]
    summaries = [summary for _, _, summary in fake.calls("summary")]
    bounds = [summary["results/log_likelihood"] for summary in summaries]
    assert bounds == [row["log_likelihood"] for row in rows]
    before = fake.calls()
    with copied("wandb", folder):
        pass
    assert fake.calls() == before


def test_a_run_of_a_sweep_is_finished_by_the_single_program(finished, tmp_path, capsys):
    workdir, rows = finished
    folder = tmp_path / "copy"
    shutil.copytree(workdir / "runs" / rows[0]["run"], folder)
    asked = small_sweep(*ARGUMENTS, **LENGTH)
    result = mnist.run(asked.runs[0].config, folder)
    assert "continues from step 30" in capsys.readouterr().out
    assert float(result.test.bound) == pytest.approx(rows[0]["test_bound"], rel=1e-5)
    log_likelihood = describe(result.likelihood.points)["log_likelihood"]
    assert log_likelihood == pytest.approx(rows[0]["log_likelihood"], rel=1e-5)


@pytest.mark.parametrize(("count", "num_devices"), [(1, 1), (7, 1), (2, 8)])
def test_interrupted_it_goes_on_to_the_same_table(
    count, num_devices, finished, tmp_path, stop_after, assert_same_table
):
    """In the first lanes' second epoch; in the next lanes; on other devices."""
    with pytest.raises(StoppedError):
        whole(tmp_path, stop_after(count))
    assert not (tmp_path / "results.jsonl").exists()
    [folder] = (tmp_path / "lanes").iterdir()
    assert Checkpoints(folder).steps()
    rows = whole(tmp_path, StopRequest(), num_devices)
    if num_devices == 1:
        assert numbers(rows) == numbers(finished[1])
    assert_same_table(rows, finished[1])
    assert not (tmp_path / "lanes").exists()


def test_eight_devices_have_the_table_of_one(finished, tmp_path, assert_same_table):
    rows = whole(tmp_path, StopRequest(), num_devices=8)
    assert_same_table(rows, finished[1])


def test_another_sweep_in_the_workdir_is_refused(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    with pytest.raises(WorkdirError, match="another sweep, of 8 runs over"):
        train(small_sweep("--sweep.seed=0:3", **LENGTH), workdir, StopRequest())
    assert (workdir / "results.csv").exists()


def test_help_names_the_flags(capsys):
    assert sweep.main(["sweep", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--sweep.FIELD=", "--lanes=", "--devices=", "--coordinator="):
        assert flag in text


def test_wrong_usage_is_one_line_and_exit_code_1(capsys):
    assert sweep.main(["sweep", "--sweep.seed=0", "--config.epochs=-1"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_sweep_is_not_continued_on_other_data(finished, tmp_path, monkeypatch):
    """The rows of two data sets would stand in one table without a word."""
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    asked = small_sweep(*ARGUMENTS, "--lanes=2", **LENGTH)
    stored = json.loads((workdir / "run.json").read_text())
    stored["data_sha256"]["mnist"] = "0" * 64
    (workdir / "run.json").write_text(json.dumps(stored))
    with pytest.raises(WorkdirError, match=r"another sweep.*data_sha256\.mnist: 0000"):
        train(asked, workdir, StopRequest())
    stored["data_sha256"] = {}
    stored["packages"]["jax"] = "0.1"
    (workdir / "run.json").write_text(json.dumps(stored))
    with pytest.raises(WorkdirError, match=r"packages\.jax: 0\.1 -> "):
        train(asked, workdir, StopRequest())


def test_a_field_that_is_newer_than_the_sweep_had_its_default(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    asked = small_sweep(*ARGUMENTS, "--lanes=2", **LENGTH)
    stored = json.loads((workdir / "sweep.json").read_text())
    for config in stored["runs"].values():
        del config["eval"]["precision"]
    (workdir / "sweep.json").write_text(json.dumps(stored))
    rows = train(asked, workdir, StopRequest())
    assert numbers(rows) == numbers(finished[1])


def test_verify_reads_a_sweep(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    findings, code = verify(workdir)
    assert code == 0, findings
    name = finished[1][0]["run"]
    assert any(what.startswith(f"runs/{name}/") for _, what, _ in findings)
    rows = (workdir / "rows.jsonl").read_bytes()
    (workdir / "rows.jsonl").write_bytes(rows.replace(b'"done"', b'"dona"', 1))
    findings, code = verify(workdir)
    assert code == 1
    [damaged] = [finding for finding in findings if not finding[0]]
    assert damaged[1] == "rows.jsonl"
