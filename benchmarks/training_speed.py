"""Training beside other libraries and beside its own matrix products, in one run.

    pip install torch numpyro  # the peers; one that is not there is left out
    python -m benchmarks.training_speed --out=a.json  # half an hour on two cores
    python -m benchmarks.training_speed --only=paper,100,dynamic,float32
    python -m benchmarks.training_speed --out=b.json --against=a.json

Ours is the program that `experiments.mnist` runs: an epoch of shuffling, drawing pixels
and updates. The limit is the matrix products of the updates alone, as one jitted
program of the same library. Compilation is apart. The programs of a case take turns,
and medians count. Give it the machine alone; the ratios are what to read.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks.timing import epoch, in_turn, seconds_of
from benchmarks.training_peers import PEERS, Case, products
from experiments import config, data
from experiments.program import build

NUM_IMAGES = 5000
CASES = [
    Case(net, batch_size, binarization, precision)
    for net in ("paper", "default")
    for batch_size in (100, 200, 500)
    for binarization in ("dynamic", "static")
    for precision in ("float32", "bfloat16")
]


def our_config(case: Case) -> ConfigDict:
    """The configuration of a case; everything else is the default."""
    ours = config.base()
    if case.net == "paper":
        ours.activation, ours.optimizer = "tanh", "adam"
        ours.schedule, ours.warmup = "constant", 0.0
    ours.hidden_dims, ours.latent_dim = case.hidden_dims, case.latent_dim
    ours.learning_rate, ours.epochs = case.learning_rate, 1
    ours.batch_size, ours.precision = case.batch_size, case.precision
    ours.data.binarization = case.binarization
    config.validate(ours)
    return ours


def measure(case: Case, repeats: int, left_out: set[str]) -> dict[str, Any]:
    """Images a second and compile seconds of every program of a case."""
    num_images = NUM_IMAGES // case.batch_size * case.batch_size
    dataset = data.load(num_train=num_images)
    images = dataset.train.images
    settings = our_config(case)
    ours = epoch(settings, build(settings, dataset))
    seconds_of(ours.call)
    calls, compile_seconds = {"ours": ours.call}, {"ours": ours.compile_seconds}
    for name, peer in {"products": products, **PEERS}.items():
        if name in left_out:
            continue
        try:
            calls[name] = peer(case, images)
        except ImportError as error:
            print(f"{name} is left out: {error}")
            left_out.add(name)
            continue
        compile_seconds[name] = seconds_of(calls[name])
        seconds_of(calls[name])
    seconds = {
        name: statistics.median(values)
        for name, values in in_turn(calls, repeats).items()
    }
    return {
        "case": case._asdict(),
        "images_a_second": {name: num_images / s for name, s in seconds.items()},
        "compile_seconds": {
            # A first call compiles and runs.
            name: value if name == "ours" else max(value - seconds[name], 0.0)
            for name, value in compile_seconds.items()
        },
    }


def row(result: dict[str, Any]) -> str:
    """A line of the table, in Markdown."""
    rates = result["images_a_second"]
    cells = [str(value) for value in result["case"].values()]
    cells += [f"{rates['products']:,.0f}", f"{rates['ours']:,.0f}"]
    cells.append(f"{rates['ours'] / rates['products']:.2f}")
    for name in PEERS:
        cells.append(f"{rates['ours'] / rates[name]:.2f}" if name in rates else "-")
    return "| " + " | ".join(cells) + " |"


def header() -> str:
    """The table's first two lines."""
    names = ["net", "M", "pixels", "products", "limit, images/s", "ours, images/s"]
    names += ["share of the limit", *(f"ours / {name}" for name in PEERS)]
    return "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|"


def compare(results: list[dict], earlier: list[dict]) -> None:
    """Prints how far the ratios of two runs are apart."""
    before = {tuple(one["case"].values()): one["images_a_second"] for one in earlier}
    changes = []
    for one in results:
        case = tuple(one["case"].values())
        now, then = one["images_a_second"], before.get(case, {})
        for name in now:
            if name != "ours" and name in then:
                ratio = now["ours"] / now[name] / (then["ours"] / then[name])
                changes.append((abs(ratio - 1), ratio, name, case))
    changes.sort(reverse=True)
    within = sum(change[0] <= 0.15 for change in changes)
    print(f"\n{within} of {len(changes)} ratios within 15 % of the earlier run's;")
    for _, ratio, name, case in changes[:5]:
        print(f"  ours / {name}, {', '.join(map(str, case))}: times {ratio:.2f}")


def main() -> None:
    """Prints the table, one line a case as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="values that a case must have")
    parser.add_argument("--without", default="", help="programs, such as 'numpyro'")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument("--against", type=Path, help="an earlier --out, to compare")
    args = parser.parse_args()
    wanted = set(filter(None, args.only.split(",")))
    cases = [case for case in CASES if wanted <= set(map(str, case))]
    left_out = set(filter(None, args.without.split(",")))

    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {jax.device_count()} {device.device_kind} device(s)")
    print(header(), flush=True)
    results: list[dict[str, Any]] = []
    began = time.perf_counter()
    # Else PyTorch finds what it compiled in an earlier run.
    cache = tempfile.TemporaryDirectory()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache.name)
    for case in cases:
        results.append(measure(case, args.repeats, left_out))
        print(row(results[-1]), flush=True)
        jax.clear_caches()
        if args.out:
            args.out.write_text(json.dumps(results, indent=1))
    print("\nSeconds of compiling, the median over the cases:")
    for name in results[0]["compile_seconds"]:
        values = [one["compile_seconds"][name] for one in results]
        print(f"  {name}: {statistics.median(values):.1f}")
    print(f"{(time.perf_counter() - began) / 60:.0f} minutes in all")
    if args.against:
        compare(results, json.loads(args.against.read_text()))


if __name__ == "__main__":
    main()
