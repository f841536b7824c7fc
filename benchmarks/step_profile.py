"""Where the time of a training step goes: the thunks of its program, and their times.

    python -m benchmarks.step_profile
    python -m benchmarks.step_profile --config=experiments/configs/paper.py \\
        --config.batch_size=100
    python -m benchmarks.step_profile --timeline  # one step, thunk by thunk
    python -m benchmarks.step_profile --trace=DIR  # keep it for XProf or Perfetto

Any configuration of `experiments.mnist`. An epoch over the first few thousand images is
traced by `jax.profiler`, on a CPU every thunk (a fusion, a product, a loop) with the
thread that ran it; the compiled program says what each is. Thunks that do not wait for
each other run side by side, so their times add up to more than the step's.
"""

import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.profiler import ProfileData, ProfileOptions

from benchmarks.timing import epoch, seconds_of
from experiments import cli, data
from experiments.program import build

USAGE = __doc__ or ""
NUM_IMAGES = 4000
# Of the trace: what only waits, or holds others.
_HOLDERS = ("Thunk", "ThreadpoolListener", "end:", "while.", "call.")


class Event(NamedTuple):
    """A thunk that ran: begin and length in nanoseconds, and its thread."""

    begin: float
    length: float
    thread: str
    name: str


def read_events(folder: Path) -> list[Event]:
    """The thunks of a trace, in the order in which they began."""
    events = []
    for file in folder.rglob("*.xplane.pb"):
        for plane in ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                if "Eigen" not in line.name and "XLA Ops" not in line.name:
                    continue
                events += [
                    Event(event.start_ns, event.duration_ns, line.name, event.name)
                    for event in line.events
                ]
    return sorted(events)


def read_instructions(text: str) -> dict[str, tuple[str, str]]:
    """Of every instruction of a compiled program, its shape and what it came from."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\([^)]*\)|\S+) \S+\(", line)
        if match is None:
            continue
        source = re.search(r'op_name="([^"]*)"', line)
        path = source[1] if source else ""
        shape = re.sub(r"\{[\d,]*\}", "", match[2])
        found.setdefault(match[1], (shape, path))
    return found


def short(path: str) -> str:
    """The end of an operation's path, with `grad` where it is of the backward pass."""
    parts = [part for part in path.split("/") if part not in ("while", "body")]
    backward = "grad " if "transpose(" in path else ""
    end = "/".join(parts[-3:])
    return backward + re.sub(r"(transpose|jvp|vmap|closed_call|jit)\b|[()]", "", end)


def main(argv: list[str]) -> None:
    """Prints the step's time, and the thunks by their time."""
    if cli.asks_for_help(argv):
        print(USAGE)
        return
    timeline = "--timeline" in argv
    kept = [item.partition("=")[2] for item in argv if item.startswith("--trace=")]
    own = ("--timeline", "--trace=")
    rest = [item for item in argv if not item.startswith(own)]
    config, _ = cli.parse(rest, config_file="default.py")
    num_steps = NUM_IMAGES // config.batch_size
    dataset = data.load(num_train=num_steps * config.batch_size)
    config.epochs, config.train_samples = 1, 0
    program = build(config, dataset)
    call, compiled, compiling = epoch(config, program)
    seconds_of(call)
    times = [seconds_of(call) / num_steps for _ in range(7)]
    print(
        f"{1e3 * np.median(times):.3f} ms a step of {config.batch_size} "
        f"({config.batch_size / np.median(times):,.0f} images a second), compiled in "
        f"{compiling:.1f} s"
    )

    options = ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(kept[0] if kept else temporary)
        with jax.profiler.trace(str(folder), profiler_options=options):
            traced = seconds_of(call) / num_steps
        events = read_events(folder)
    instructions = read_instructions(compiled.as_text())
    work = [event for event in events if not event.name.startswith(_HOLDERS)]
    if not work:
        print("the trace has no thunks: this platform's profiler does not tell them")
        return
    total: dict[str, float] = defaultdict(float)
    for event in work:
        total[event.name] += event.length / num_steps / 1e3
    threads = len({event.thread for event in work})
    busy = sum(total.values()) / (1e3 * traced * threads * 1e3)
    print(
        f"traced {1e3 * traced:.3f} ms a step; {threads} threads, {busy:.0%} of their "
        f"time in thunks, {len(work) / num_steps:.0f} of these a step"
    )
    if timeline:
        _print_timeline(work, num_steps, instructions)
        return
    print("\nus/step  share  thunk                           shape, from")
    for name, length in sorted(total.items(), key=lambda item: -item[1])[:40]:
        shape, path = instructions.get(name, ("", ""))
        share = length / (1e6 * traced)
        print(f"{length:7.1f}  {share:5.1%}  {name:30}  {shape[:40]} {short(path)}")


def _print_timeline(
    work: list[Event], num_steps: int, instructions: dict[str, tuple[str, str]]
) -> None:
    """One step from the middle of the epoch, from one large product to its next."""
    counts: dict[str, list[int]] = defaultdict(list)
    for index, event in enumerate(work):
        counts[event.name].append(index)
    once = {name: found for name, found in counts.items() if len(found) == num_steps}
    anchor = max(once, key=lambda name: sum(work[i].length for i in once[name]))
    first, last = once[anchor][num_steps // 2 : num_steps // 2 + 2]
    threads = sorted({event.thread for event in work})
    print("\n   begin  length us  thread  thunk                           shape, from")
    for event in work[first:last]:
        shape, path = instructions.get(event.name, ("", ""))
        print(
            f"{(event.begin - work[first].begin) / 1e3:8.1f} {event.length / 1e3:9.1f}"
            f"  {threads.index(event.thread):6}  {event.name:30}  {shape[:40]} "
            f"{short(path)}"
        )


if __name__ == "__main__":
    sys.exit(cli.exit_codes(lambda: main(sys.argv)))
