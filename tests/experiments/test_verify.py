"""Whatever happens to a file of a workdir, `verify` says it in a line."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from configurations import small

from experiments import verify
from experiments.program import load_dataset
from experiments.storage.atomic import write_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.metrics import Metrics
from experiments.storage.parts import Parts


def write_run(workdir: Path, seed: int = 0) -> None:
    """A finished run of two epochs, as far as `verify` looks at one."""
    config = small(seed=seed)
    workdir.mkdir(parents=True)
    write_json(workdir / "config.json", config.to_dict())
    manifest = {"data_sha256": load_dataset(config).sha256, "steps_per_epoch": 10}
    write_json(workdir / "run.json", manifest)
    metrics = Metrics(workdir, [])
    checkpoints = Checkpoints(workdir)
    for epoch in (1, 2):
        metrics.write(10 * epoch, {"epoch": epoch, "train/bound": -100.0 - epoch})
        state = {"step": np.asarray(10 * epoch), "w": np.ones(5, np.float32)}
        checkpoints.save(10 * epoch, state, {"lines": metrics.lines})
    checkpoints.close()
    metrics.close()
    parts = Parts(workdir / "evaluation" / "log_likelihood.jsonl", {"seed": seed})
    for i in range(3):
        parts.put(f"points {i}", [-90.0 - i])
    write_json(workdir / "results.json", {"test_bound": -90.5})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("verify") / "run"
    write_run(workdir)
    return workdir


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("verify") / "sweep"
    names = [f"seed={seed}" for seed in (0, 1)]
    for seed, name in enumerate(names):
        write_run(workdir / "runs" / name, seed)
    configs = {n: small(seed=seed).to_dict() for seed, n in enumerate(names)}
    write_json(workdir / "sweep.json", {"fields": ["seed"], "runs": configs})
    write_json(workdir / "run.json", {"data_sha256": {"mnist": "d"}})
    rows = [{"run": name, "test_bound": -90.5} for name in names]
    parts = Parts(workdir / "rows.jsonl", "the sweep")
    for row in rows:
        parts.put(str(row["run"]), row)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (workdir / "results.jsonl").write_text(text)
    return workdir


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def damaged(workdir: Path) -> dict[str, str]:
    found, code = verify.verify(workdir)
    damage = {what: text for whole, what, text in found if not whole}
    assert (code != 0) == bool(damage)
    return damage


def test_a_whole_run_and_a_whole_sweep(run, sweep, capsys):
    assert verify.main([f"--workdir={run}"]) == 0
    out = capsys.readouterr().out
    assert "evaluation/log_likelihood.jsonl: 3 finished parts" in out
    assert verify.main([f"--workdir={sweep}"]) == 0
    out = capsys.readouterr().out
    assert "sweep.json: 2 runs over seed" in out
    assert "rows.jsonl: 2 finished parts" in out
    assert "runs/seed=1/checkpoint 20: " in out
    assert "DAMAGED" not in out


def test_an_empty_object_is_a_finding(copy):
    """`{}` ended it in a KeyError."""
    for name in ("results.json", "run.json", "config.json", "metrics.jsonl"):
        content = (copy / name).read_bytes()
        for text in ("{}", "{}\n", "[]", "null\n", "\xff", "", "Infinity"):
            (copy / name).write_bytes(text.encode("latin1"))
            # An empty configuration is the default one, which has other data sizes.
            assert damaged(copy) or name in ("config.json", "metrics.jsonl")
        (copy / name).write_bytes(content)
    assert damaged(copy) == {}


def test_a_damaged_part_is_a_finding(copy):
    """Only the keys of a part were looked at, not its sum."""
    path = copy / "evaluation" / "log_likelihood.jsonl"
    path.write_bytes(path.read_bytes().replace(b"-91.0", b"-91.5"))
    expected = {"evaluation/log_likelihood.jsonl"}
    found = damaged(copy)
    assert set(found) == expected
    assert "1 of 3 lines are not as they were written" in found.popitem()[1]


def flip(path: Path, generator: random.Random) -> bytes:
    """Flips one bit of a file; returns what it held."""
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
    path.write_bytes(flipped)
    return content


@pytest.mark.parametrize(
    "name",
    ["config.json", "run.json", "results.json", "metrics.jsonl", "evaluation/*.jsonl",
     "checkpoints/*.sha256", "checkpoints/20/**/*"],
)  # fmt: skip
def test_a_flipped_bit_ends_in_no_traceback(copy, name):
    generator = random.Random(name)
    files = [p for p in sorted(copy.glob(name)) if p.is_file() and p.stat().st_size]
    assert files
    for _ in range(4):
        path = generator.choice(files)
        content = flip(path, generator)
        found = damaged(copy)
        path.write_bytes(content)
        # What has a sum is found damaged; the other files are only read.
        assert found or name in ("config.json", "run.json", "results.json")


@pytest.mark.parametrize("name", ["sweep.json", "rows.jsonl", "results.jsonl"])
def test_a_flipped_bit_in_a_sweep_ends_in_no_traceback(sweep, tmp_path, name):
    def no_runs(_: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "runs"]

    copy = shutil.copytree(sweep, tmp_path / "sweep", ignore=no_runs)
    generator = random.Random(name)
    for _ in range(20):
        content = flip(copy / name, generator)
        assert name in damaged(copy) or name != "rows.jsonl"
        (copy / name).write_bytes(content)
    for text in ("{}", "[]", '{"runs": [1, null], "fields": 3}', '{"runs": 5}'):
        (copy / name).write_text(text)
        assert name in damaged(copy)


def test_a_damaged_run_of_a_sweep_is_named(sweep, tmp_path, capsys):
    copy = shutil.copytree(sweep, tmp_path / "sweep")
    write_json(copy / "runs" / "seed=1" / "results.json", {})
    assert list(damaged(copy)) == ["runs/seed=1/results.json"]
    for path in (copy / "runs" / "seed=0" / "checkpoints").glob("*.sha256"):
        path.write_text("")
    assert verify.main([f"--workdir={copy}"]) == 3


def test_moved_data_are_given_a_place(copy):
    config = small(**{"data.path": str(copy / "gone")})
    write_json(copy / "config.json", config.to_dict())
    assert list(damaged(copy)) == ["data"]
    import experiments.data.idx as idx

    found, code = verify.verify(copy, data_path=str(idx.BUNDLED))
    assert code == 0, found


def test_what_is_no_directory_is_one_line(tmp_path, capsys):
    assert verify.main([f"--workdir={tmp_path / 'none'}"]) == 1
    assert verify.main([]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "none is not a directory" in errors[0]
    assert "--workdir" in errors[1]
