"""What a run prints while a person waits."""

import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.data import Dataset
from experiments.grid import Run
from experiments.program import Program

__all__ = [
    "SweepProgress",
    "announce",
    "duration",
    "print_epoch",
    "print_likelihood",
]


def announce(
    config: ConfigDict, dataset: Dataset, program: Program, num_devices: int
) -> None:
    """Says what is trained on what."""
    splits = (dataset.train, dataset.valid, dataset.test)
    sizes = " / ".join(f"{len(split.images):,}" for split in splits)
    widths = "-".join(map(str, (dataset.train.images.shape[1], *config.hidden_dims)))
    print(f"{dataset.name} ({config.data.binarization}), {sizes} train / valid / test")
    print(
        f"{widths}-{config.latent_dim} {config.activation}, {config.estimator} with "
        f"{config.num_samples} sample{'s' * (config.num_samples > 1)}, "
        f"{config.optimizer} {config.learning_rate:g}, batches of {config.batch_size}, "
        f"{program.num_epochs:,} epochs on {jax.devices()[0].device_kind}"
        + (f" x {num_devices}" if num_devices > 1 else "")
        + (", read from disk" if program.is_streamed else ""),
        flush=True,
    )


def print_epoch(
    config: ConfigDict, program: Program, scalars: Mapping[str, float], speed: float
) -> None:
    """One line an epoch, in nats per image; `speed` in images per second."""
    epoch = int(scalars["epoch"])
    left = (program.num_epochs - epoch) * program.steps_per_epoch * config.batch_size
    parts = [f"epoch {epoch:>{len(str(program.num_epochs))}}/{program.num_epochs}"]
    parts.append(f"train bound {scalars['train/bound']:8.2f}")
    if "train/kl" in scalars:
        parts.append(
            f"reconstruction {scalars['train/reconstruction']:8.2f} "
            f"KL {scalars['train/kl']:5.2f}"
        )
    curve = config.eval.curve
    if f"{curve}/bound" in scalars:
        parts.append(
            f"{curve} bound {scalars[f'{curve}/bound']:8.2f} "
            f"KL {scalars[f'{curve}/kl']:5.2f} "
            f"active {scalars[f'{curve}/active_units']:.0f}"
        )
    parts.append(f"{speed:,.0f} images/s, {duration(left / speed)} left")
    print("  ".join(parts), flush=True)


def print_likelihood(done: int, total: int, speed: float) -> None:
    """One line, written over: how far the estimate of log p(x) is."""
    end = "\n" if done == total else "\r"
    left = duration((total - done) / speed)
    print(
        f"  {done:,}/{total:,} images, {speed:.1f} images/s, {left} left   ",
        end=end,
        flush=True,
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(59.6), duration(3661)
    ('1:00', '1:01:01')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class SweepProgress:
    """Runs done, lanes, images a second and the time left, one line an epoch."""

    def __init__(self, num_runs: int, num_done: int):
        """Of so many runs, so many are done already."""
        self._num_runs, self._num_done = num_runs, num_done
        # Of one run: seconds for an epoch, and for what comes after the last one.
        self._epochs: list[float] = []
        self._ends: list[float] = []

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

    def evaluated(self, done: int, total: int) -> None:
        """So many points of log p(x) are done."""
        end = "\n" if done == total else "\r"
        text = f"  log p(x) of {done:,}/{total:,} test points, all lanes"
        print(text, end=end, flush=True)

    def finish_chunk(self) -> None:
        """The lanes are evaluated and written."""
        self._ends.append((time.perf_counter() - self._began) / self._size)
        self._num_done += self._size
