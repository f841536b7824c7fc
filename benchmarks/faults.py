"""What issue 3 promises, at full length: kill -9, replays, flipped bits, signals, cost.

    python -m benchmarks.faults            # all, about half an hour on two cores
    python -m benchmarks.faults flips cost # some of them
    python -m benchmarks.faults --kills=5 kills

Each part prints one line of a table. Short forms of the same are tests:
`tests/experiments/training/test_resume.py`, `tests/experiments/storage/`.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import mnist
from experiments.config import base, validate
from experiments.errors import CheckpointError
from experiments.processes.interruption import StopRequest
from experiments.program import build, load_dataset
from experiments.storage.atomic import read_json
from experiments.storage.checkpoints import Checkpoints
from experiments.training import loop as training
from experiments.training.epochs import all_finite


def small(**changes: object) -> ConfigDict:
    """A run of a few seconds that saves after every epoch."""
    config = base()
    config.update_from_flattened_dict(
        {
            "data.num_train": 1000,
            "data.num_valid": 200,
            "latent_dim": 5,
            "hidden_dims": (64,),
            "batch_size": 50,
            "epochs": 12,
            "eval.every": 2,
            "eval.num_samples": 50,
            "eval.num_points": 40,
            "eval.batch_size": 4,
            "eval.chunk_size": 50,
            "checkpoint.every": 1,
            **changes,
        }
    )
    validate(config)
    return config


def use_cache(folder: str) -> None:
    """Compiles every program once: the processes of a part run the same ones."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def in_process(workdir: str, cache: str, changes: dict[str, object]) -> None:
    """A run in a process of its own, its figures left out."""
    from experiments.reports import run

    use_cache(cache)
    with (
        open(os.devnull, "w") as null,
        mock.patch.object(sys, "stdout", null),
        mock.patch.object(run, "_figures", return_value=[]),
    ):
        try:
            mnist.run(small(**changes), Path(workdir))
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(1)


def start(workdir: Path, cache: str, **changes: object) -> BaseProcess:
    """Starts a run in a process that has its imports done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.faults", "experiments.reports.run"])
    process = context.Process(target=in_process, args=(str(workdir), cache, changes))
    process.start()
    return process


def outcome(workdir: Path) -> dict[str, object]:
    """Every number that a run ends with."""
    step = Checkpoints(workdir).steps()[-1]
    found: dict[str, object] = {
        "leaves": Checkpoints(workdir).verify(step).record["leaves"],
        "metrics": (workdir / "metrics.jsonl").read_bytes(),
    }
    if (workdir / "results.json").exists():
        results = read_json(workdir / "results.json")
        found["results"] = {k: v for k, v in results.items() if k != "timings"}
    return found


def kills(folder: Path, cache: str, count: int) -> str:
    """kill -9 at random moments of a run, and then the same command to the end."""
    start(folder / "first", cache).join()  # fills the cache
    began = time.perf_counter()
    start(folder / "whole", cache).join()
    seconds = time.perf_counter() - began
    expected = outcome(folder / "whole")
    generator = random.Random(0)
    equal = saving = 0
    resumed: list[int] = []
    for trial in range(count):
        workdir = folder / f"killed-{trial}"
        process = start(workdir, cache)
        if trial % 2:  # within the save of some epoch
            wanted = 20 * generator.randrange(11)  # steps; an epoch has 20
            while process.is_alive() and not (
                Checkpoints(workdir).unfinished()
                and wanted <= max([0, *Checkpoints(workdir).steps()])
            ):
                pass
            time.sleep(0.05 * generator.random())
        else:
            time.sleep(generator.random() * seconds)
        process.kill()
        process.join()
        saving += bool(Checkpoints(workdir).unfinished())
        resumed.append((Checkpoints(workdir).steps() or [0])[-1])
        again = start(workdir, cache)
        again.join()
        equal += again.exitcode == 0 and outcome(workdir) == expected
        print(f"  kill {trial}: went on from {resumed[-1]}, equal {equal}", flush=True)
    return (
        f"kill -9 at {count} random moments of a {seconds:.0f} s run, {saving} of them "
        f"in a save, resumed from {len(set(resumed))} different steps | {equal} of "
        f"{count} bitwise equal"
    )


def replays(folder: Path, cache: str, epochs: int) -> str:
    """Restores at every saved step of a long run, and replays to its end."""
    use_cache(cache)
    config = small(epochs=epochs, **{"checkpoint.keep": 1000, "eval.every": 5})
    program = build(config, load_dataset(config))
    with mock.patch.object(training, "print_epoch"):
        (folder / "whole").mkdir()
        training.train(config, program, folder / "whole", StopRequest())
        expected = outcome(folder / "whole")
        steps = Checkpoints(folder / "whole").steps()
        equal = 0
        for step in steps[:-1]:
            workdir = shutil.copytree(folder / "whole", folder / str(step))
            for later in steps:
                if later > step:
                    shutil.rmtree(workdir / "checkpoints" / str(later))
            with mock.patch("builtins.print"):
                training.train(config, program, workdir, StopRequest())
            equal += outcome(workdir) == expected
            shutil.rmtree(workdir)
    return (
        f"restore at each of the {len(steps) - 1} earlier saved steps of a "
        f"{epochs}-epoch run and replay | {equal} of {len(steps) - 1} bitwise equal"
    )


def flips(folder: Path, cache: str, count: int) -> str:
    """Damages the files of the last checkpoint one way at a time, and restores."""
    use_cache(cache)
    config = small(epochs=2)
    program = build(config, load_dataset(config))
    with mock.patch.object(training, "print_epoch"):
        training.train(config, program, folder, StopRequest())
    like = jax.eval_shape(lambda: training.start(config, program))
    before, last = Checkpoints(folder).steps()
    right = {
        step: [np.asarray(leaf) for leaf in Checkpoints(folder).verify(step).state]
        for step in (before, last)
    }
    place = folder / "checkpoints"
    sums = place / f"{last}.sha256"
    files = sorted(p for p in (place / str(last)).rglob("*") if p.is_file())
    generator = random.Random(0)
    seen = {"fell back": 0, "read, and right": 0, "stopped": 0, "WRONG": 0}

    def look() -> None:
        try:
            found = Checkpoints(folder).read(like)
        except CheckpointError:
            seen["stopped"] += 1
            return
        leaves = jax.tree.leaves(found.state)
        same = all(
            np.array_equal(a, b) for a, b in zip(leaves, right[found.step], strict=True)
        )
        kind = "fell back" if found.step == before else "read, and right"
        seen[kind if same else "WRONG"] += 1

    def damage(file: Path, change: Callable[[bytes], bytes | None]) -> None:
        content = file.read_bytes()
        changed = change(content)
        if changed == content:
            return
        if changed is None:
            file.unlink()
        else:
            file.write_bytes(changed)
        look()
        file.write_bytes(content)

    def flip(content: bytes) -> bytes:
        flipped = bytearray(content)
        flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        return bytes(flipped)

    def told() -> str:
        text = ", ".join(f"{n} {kind}" for kind, n in seen.items() if n)
        for kind in seen:
            seen[kind] = 0
        return text

    texts = []
    everything = [*files, sums]
    sizes = [file.stat().st_size for file in everything]
    for file in generator.choices(everything, sizes, k=count // 2):
        damage(file, flip)  # a bit of all bits,
    for file in generator.choices(
        [f for f in everything if f.stat().st_size], k=count // 2
    ):
        damage(file, flip)  # and of a file of all files: most are small
    texts.append(f"{count} flipped bits: {told()}")
    for file in everything:
        for share in (0, 0.01, 0.25, 0.5, 0.99):
            damage(
                file, lambda content, share=share: content[: int(share * len(content))]
            )
    texts.append(f"truncated at 0, 1, 25, 50, 99 %: {told()}")
    for file in files:
        damage(file, lambda _: None)
    texts.append(f"each of {len(files)} files deleted: {told()}")
    kept = sums.read_bytes()
    sums.unlink()
    look()
    texts.append(f"the sums of the files deleted: {told()}")
    for file in generator.choices(files, k=count):
        damage(file, flip)
    texts.append(f"{count} flipped bits without those sums, by the leaves': {told()}")
    sums.write_bytes(kept)
    for step in (before, last):
        file = place / str(step) / "state" / "manifest.ocdbt"
        file.write_bytes(flip(file.read_bytes()))
    look()
    texts.append(f"both checkpoints damaged: {told()}")
    return "damage to a checkpoint | " + "; ".join(texts)


def signals(folder: Path, cache: str, _: int) -> str:
    """SIGTERM to the default job, in training; a second one; two writers."""
    workdir = folder / "run"
    command = [sys.executable, "-m", "experiments.mnist", f"--workdir={workdir}"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}

    def launch(**kwargs: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, **kwargs,
        )  # fmt: skip

    def wait_for_epoch(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("epoch"):
            if process.poll() is not None:
                raise RuntimeError("the run ended before its first epoch")

    first = launch()
    wait_for_epoch(first)
    began = time.perf_counter()
    second = launch()
    _, error = second.communicate()
    refused = time.perf_counter() - began
    assert second.returncode == 1, error
    assert f"in use by process {first.pid} on" in error, error
    time.sleep(1)
    began = time.perf_counter()
    first.send_signal(signal.SIGTERM)
    first.communicate()
    stopped = time.perf_counter() - began
    code = first.returncode
    saved = Checkpoints(workdir).steps()
    third = launch()
    wait_for_epoch(third)
    third.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    began = time.perf_counter()
    third.send_signal(signal.SIGTERM)
    third.communicate()
    left = time.perf_counter() - began
    return (
        f"the default job: SIGTERM | exit {code} after {stopped:.1f} s with a "
        f"checkpoint of step {saved[-1]}; a second signal: gone in {left:.2f} s (exit "
        f"{third.returncode}); a second process: refused in {refused:.1f} s, imports "
        "included"
    )


def cost(folder: Path, cache: str, epochs: int) -> str:
    """The share of the default job's epochs that saves and checks take, in one run.

    Both are timed inside it and taken off its time: two runs, one with and one without,
    differ by more than what is looked for.
    """
    use_cache(cache)
    config = base()
    config.epochs = epochs
    program = build(config, load_dataset(config))
    saving = 0.0
    save = Checkpoints.save

    def timed(*args: Any, **kwargs: Any) -> None:
        nonlocal saving
        began = time.perf_counter()
        save(*args, **kwargs)
        saving += time.perf_counter() - began

    params = training.start(config, program).params
    one_check = jax.jit(all_finite)
    jax.block_until_ready(one_check(params))
    began = time.perf_counter()
    for _ in range(100):
        jax.block_until_ready(one_check(params))
    checking = epochs * (time.perf_counter() - began) / 100
    began = time.perf_counter()
    with mock.patch.object(Checkpoints, "save", timed):
        trained = training.train(config, program, folder, StopRequest())
    whole = time.perf_counter() - began
    share = 100 * (whole / (whole - saving - checking) - 1)
    every = config.checkpoint.every
    return (
        f"the cost in {epochs} epochs of the default job, checkpoint.every={every} | "
        f"{whole:.1f} s, {trained.seconds:.1f} s of it in epochs, {saving:.2f} s "
        f"saving and {checking:.3f} s checking: {share:.2f} % more than without"
    )


PARTS: dict[str, tuple[Callable[[Path, str, int], str], int]] = {
    "kills": (kills, 20),
    "replays": (replays, 50),
    "flips": (flips, 200),
    "signals": (signals, 0),
    "cost": (cost, 10),
}


def main() -> None:
    """Runs the parts that are named, or all, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default all")
    for name, (_, count) in PARTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.parts or PARTS:
        part, _ = PARTS[name]
        with (
            tempfile.TemporaryDirectory() as folder,
            tempfile.TemporaryDirectory() as c,
        ):
            rows.append(part(Path(folder), c, getattr(arguments, name)))
        print(f"| {rows[-1]} |", flush=True)
    print("\n| fault | what came of it |\n| --- | --- |")
    for row in rows:
        print(f"| {row} |")


if __name__ == "__main__":
    main()
