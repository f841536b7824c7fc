"""How the cost of training grows: with the data, the width, the draws and the runs.

    python -m benchmarks.training_growth               # minutes on two cores
    python -m benchmarks.training_growth --out=growth.png

The paper's network (784-500-20, minibatches of 100) with one thing changed at a time,
as `experiments.mnist` and `experiments.sweep` train it; a few updates each, all in
turn, medians, compilation apart. The picture has microseconds an image (and run).
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from benchmarks.sweep_speed import as_lanes
from benchmarks.timing import epoch, in_turn
from benchmarks.training_peers import Case
from benchmarks.training_speed import our_config
from experiments import data
from experiments.program import build
from experiments.reports.style import DPI, INK, LINES, PALE, save_png
from experiments.sweeps import grid

BASE = Case("paper", 100, "dynamic", "float32")
NUM_STEPS = 20
AXES: dict[str, tuple[int, ...]] = {
    "N, training images": (1000, 5000, 20_000, 50_000),
    "hidden units": (50, 100, 200, 500, 1000, 2000),
    "L, draws of the bound": (1, 2, 5, 10, 20),
    "K, importance-weighted": (1, 2, 5, 10, 20),
    "lanes of a sweep": (1, 2, 4, 8, 16),
}


def prepare(axis: str, value: int) -> tuple[Any, int]:
    """A call, and how many images (of all runs) it trains on."""
    config, size = our_config(BASE), NUM_STEPS * BASE.batch_size
    if axis.startswith("N"):
        size = value
    elif axis.startswith("hidden"):
        config.hidden_dims = (value,)
    elif axis.startswith(("L", "K")):
        config.num_samples = value
        config.estimator = "iwae" if axis.startswith("K") else "sgvb_b"
    dataset = data.load(num_train=size)
    if axis.startswith("lanes"):
        seeds = {"seed": list(range(value))}
        runs = grid.expand(config, grid.combinations(seeds))
        call, _compiling = as_lanes(runs, build(config, dataset), value)
        return call, size * value
    return epoch(config, build(config, dataset)).call, size


def draw(found: dict[str, dict[int, float]], path: Path) -> None:
    """A panel for each axis, all of one height."""
    figure = Figure((14, 3), dpi=DPI, facecolor="white", layout="constrained")
    for axes, (axis, costs) in zip(
        figure.subplots(1, len(found), sharey=True), found.items(), strict=True
    ):
        axes.loglog(costs.keys(), costs.values(), "o-", color=LINES[0], markersize=4)
        axes.set_xlabel(axis, fontsize=10, color=INK)
        axes.set_xticks(list(costs), [f"{value:,}" for value in costs], fontsize=8)
        axes.minorticks_off()
        axes.grid(True, color="#e6e9ed", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(PALE)
    first = figure.axes[0]
    first.set_ylabel("µs an image", fontsize=10, color=INK)
    ticks = (10, 20, 50, 100, 200, 500)
    first.set_yticks(ticks, [str(tick) for tick in ticks])
    save_png(figure, path)


def main() -> None:
    """Prints the costs, and draws them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a PNG file")
    args = parser.parse_args()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {jax.device_count()} {device.device_kind} device(s)")
    found: dict[str, dict[int, float]] = {}
    for axis, values in AXES.items():
        calls, sizes = {}, {}
        for value in values:
            calls[str(value)], sizes[str(value)] = prepare(axis, value)
        in_turn(calls, 1)  # the first call is slower
        taken = in_turn(calls, args.repeats)
        found[axis] = {
            int(name): 1e6 * statistics.median(seconds) / sizes[name]
            for name, seconds in taken.items()
        }
        row = "  ".join(f"{value:,}: {cost:.1f}" for value, cost in found[axis].items())
        print(f"{axis}, us an image: {row}", flush=True)
        jax.clear_caches()
    if args.out:
        draw(found, args.out)


if __name__ == "__main__":
    main()
