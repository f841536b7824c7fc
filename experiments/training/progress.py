"""What a run prints while a person waits."""

import math
import time
from collections.abc import Mapping

import jax
from ml_collections import ConfigDict

from experiments.data import Dataset
from experiments.evaluation.points import Progress
from experiments.program import Program

__all__ = ["Pace", "announce", "duration", "print_epoch", "print_points"]

# A small data set has hundreds of epochs a second.
_FEW_EPOCHS, _SECONDS_A_LINE = 100, 1.0


class Pace:
    """Which epochs get a line: all of a run of few, of many one a second."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._shown = -math.inf

    def shows(self, epoch: int, num_epochs: int) -> bool:
        """Whether this epoch, the next one to end, gets a line."""
        now = time.perf_counter()
        few = num_epochs <= _FEW_EPOCHS or epoch == num_epochs
        if not few and now < self._shown + _SECONDS_A_LINE:
            return False
        self._shown = now
        return True


def announce(
    config: ConfigDict, dataset: Dataset, program: Program, num_devices: int
) -> None:
    """Says what is trained on what."""
    splits = (dataset.train, dataset.valid, dataset.test)
    sizes = " / ".join(f"{len(split.images):,}" for split in splits)
    widths = "-".join(map(str, (dataset.train.images.shape[1], *config.hidden_dims)))
    print(f"{dataset.name} ({config.data.binarization}), {sizes} train / valid / test")
    print(
        f"{widths}-{config.latent_dim} {config.activation}, {_method(config)}, "
        f"{config.optimizer} {config.learning_rate:g}, batches of {config.batch_size}, "
        f"{program.num_epochs:,} epochs on {jax.devices()[0].device_kind}"
        + (f" x {num_devices}" if num_devices > 1 else "")
        + (", read from disk" if program.is_streamed else ""),
        flush=True,
    )


def _method(config: ConfigDict) -> str:
    if config.algorithm != "aevb":
        return str(config.algorithm)
    plural = "s" * (config.num_samples > 1)
    return f"{config.estimator} with {config.num_samples} sample{plural}"


def print_epoch(
    config: ConfigDict, program: Program, scalars: Mapping[str, float], speed: float
) -> None:
    """One line an epoch, in nats per image; `speed` in images per second."""
    epoch = int(scalars["epoch"])
    left = (program.num_epochs - epoch) * program.steps_per_epoch * config.batch_size
    parts = [f"epoch {epoch:>{len(str(program.num_epochs))}}/{program.num_epochs}"]
    if "train/bound" in scalars:
        parts.append(f"train bound {scalars['train/bound']:8.2f}")
    else:  # no encoder, no bound
        parts.append(f"objective {scalars['train/objective']:8.2f}")
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


def print_points(progress: Progress) -> None:
    """One line, written over: how far the estimate of log p(x) is."""
    print(
        f"  {progress.name}: {progress.done:,}/{progress.total:,} points, mean so far "
        f"{progress.mean:.2f} nats, {progress.points_per_second:.1f} points/s, "
        f"{duration(progress.seconds_left)} left   ",
        end="\n" if progress.done == progress.total else "\r",
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
