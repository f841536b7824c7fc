"""What a sweep prints while a person waits."""

import time
from collections.abc import Sequence

import numpy as np

from experiments.evaluation.points import Progress
from experiments.program import Program
from experiments.sweeps.grid import Run
from experiments.training.progress import Pace, duration

__all__ = ["SweepProgress"]


class SweepProgress:
    """Runs done, lanes, images a second and the time left, at a `Pace`."""

    def __init__(self, num_runs: int, num_done: int):
        """Of so many runs, so many are done already."""
        self._num_runs, self._num_done = num_runs, num_done
        # Of one run: seconds for an epoch, and for what comes after the last one.
        self._epochs: list[float] = []
        self._ends: list[float] = []
        self._pace = Pace()

    def start_group(self, number: int, group: Sequence[Run], width: int) -> None:
        """Runs of one shape, so many lanes at once."""
        self._group = f"group {number + 1}"
        shape = f"{group[0].config.latent_dim} latent dims"
        print(
            f"{self._group}: {len(group):,} runs ({shape}, hidden "
            f"{group[0].config.hidden_dims}), {width:,} lanes at once",
            flush=True,
        )

    def start_chunk(self, size: int, program: Program) -> None:
        """So many of them side by side."""
        self._size, self._num_epochs = size, program.num_epochs
        self._samples = len(program.train)
        self._began = time.perf_counter()

    def epoch(self, epoch: int, seconds: float, best: float) -> None:
        """An epoch of all lanes took so long; `best` is the highest train bound."""
        self._began = time.perf_counter()
        self._epochs.append(seconds / self._size)
        if not self._pace.shows(epoch, self._num_epochs):
            return
        left = self._num_runs - self._num_done
        work = (left * self._num_epochs - self._size * epoch) * np.median(self._epochs)
        if self._ends:
            work += left * np.median(self._ends)
        print(
            f"{self._num_done:,}/{self._num_runs:,} runs done  {self._group}, "
            f"{self._size:,} lanes, epoch {epoch}/{self._num_epochs}  best train bound "
            f"{best:.2f}  {self._size * self._samples / seconds:,.0f} images/s, "
            f"{duration(float(work))} left",
            flush=True,
        )

    def evaluated(self, progress: Progress) -> None:
        """So many points of log p(x) are done."""
        end = "\n" if progress.done == progress.total else "\r"
        text = (
            f"  log p(x) of {progress.done:,}/{progress.total:,} test points, all lanes"
        )
        print(text, end=end, flush=True)

    def finish_chunk(self) -> None:
        """The lanes are evaluated and written."""
        self._ends.append((time.perf_counter() - self._began) / self._size)
        self._num_done += self._size
