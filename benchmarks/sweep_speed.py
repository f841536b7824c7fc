"""A sweep as lanes of one program beside the same runs one after another.

    python -m benchmarks.sweep_speed                   # ten minutes on two cores
    JAX_NUM_CPU_DEVICES=8 python -m benchmarks.sweep_speed

3 step sizes x 16 seeds of the default configuration on MNIST, an epoch each, without
evaluation. First the growth from 1 to 48 lanes over a few steps, all programs in turn,
medians; then the whole 48 epochs one after another, as many lanes at once as
`experiments.sweep` chooses, and all 48 lanes at once. Compilation is apart. Give it the
machine alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.timing import epoch, in_turn, seconds_of
from experiments import config, data
from experiments.processes import distributed
from experiments.program import Program, build
from experiments.sweeps import grid, lanes, sizing

WIDTHS = (1, 2, 4, 8, 16, 48)


def as_lanes(
    runs: list[grid.Run], program: Program, width: int
) -> tuple[Callable, float]:
    """An epoch of so many runs at once, and compile seconds."""
    chosen = runs[:width]
    mesh = distributed.mesh("lane")
    trainer = lanes.Trainer(chosen[0].config, program, mesh, width)
    sharding = jax.NamedSharding(mesh, jax.P("lane"))
    index = np.minimum(np.arange(trainer.num_lanes), width - 1)
    own = jax.tree.map(lambda leaf: leaf[index], lanes.Lanes.of(chosen))
    own = lanes.put(own, sharding)
    host = jax.device_get(trainer.start(own))
    began = time.perf_counter()
    trainer.epoch(own, lanes.put(host, sharding))
    compiling = time.perf_counter() - began
    return lambda: trainer.epoch(own, lanes.put(host, sharding))[1], compiling


def main() -> None:
    """Prints seconds a run and the ratio to single runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=50, help="of the growth")
    parser.add_argument("--repeats", type=int, default=5, help="of the growth")
    parser.add_argument("--hidden_dims", default="500,500")
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--growth_only", action="store_true")
    args = parser.parse_args()

    base = config.base()
    base.hidden_dims = tuple(int(dim) for dim in args.hidden_dims.split(","))
    base.batch_size, base.epochs, base.schedule = args.batch_size, 1, "constant"
    axes = {"learning_rate": [3e-4, 1e-3, 3e-3], "seed": list(range(16))}
    runs = grid.expand(base, grid.combinations(axes))
    dataset = data.load()
    short = args.steps * args.batch_size
    few = build(base, data.load(num_train=short))
    whole = build(base, dataset)
    print(
        f"{jax.device_count()} {jax.devices()[0].platform} device(s); 784-"
        f"{'-'.join(map(str, base.hidden_dims))}-{base.latent_dim}, minibatches of "
        f"{base.batch_size}; {len(runs)} runs"
    )

    single = epoch(runs[0].config, few)
    programs = {"single": (single.call, single.compile_seconds)}
    programs |= {str(width): as_lanes(runs, few, width) for width in WIDTHS}
    taken = in_turn(
        {name: call for name, (call, _compiling) in programs.items()}, args.repeats
    )
    middle = {
        name: statistics.median(seconds) / (1 if name == "single" else int(name))
        for name, seconds in taken.items()
    }
    print(f"\n{args.steps} steps a run, median of {args.repeats}, all in turn")
    print("lanes   ms a step and run   single run / lane   images a second   compile s")
    for name, (_call, compiling) in programs.items():
        seconds = middle[name]
        rate = args.steps * args.batch_size / seconds
        print(
            f"{name:>6}   {1e3 * seconds / args.steps:17.3f}   "
            f"{middle['single'] / seconds:17.2f}   {rate:15,.0f}   {compiling:9.1f}"
        )
    if args.growth_only:
        return

    call, _, compiling = epoch(runs[0].config, whole)
    one_by_one = sum(seconds_of(call) for _ in runs)
    print(f"\n{len(runs)} runs of {whole.steps_per_epoch} steps")
    print(f"one after another: {one_by_one:.1f} s (compiling {compiling:.1f} s)")
    mesh = distributed.mesh("lane")
    began = time.perf_counter()
    # As for a sweep of ten epochs.
    width = sizing.lanes_at_once(runs, whole._replace(num_epochs=10), mesh)
    choosing = time.perf_counter() - began
    for count, note in ((width, f", chosen in {choosing:.1f} s"), (len(runs), "")):
        call, compiling = as_lanes(runs, whole, count)
        chunks = [runs[i : i + count] for i in range(0, len(runs), count)]
        seconds = sum(seconds_of(call) for _ in chunks)
        print(
            f"{count} lanes at once{note}: {seconds:.1f} s (compiling and a first "
            f"epoch {compiling:.1f} s), {one_by_one / seconds:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
