"""A trained run, opened to be used."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

import aevb
from experiments.data import Dataset
from experiments.errors import ConfigError
from experiments.keys import Stream, stream_key
from experiments.storage.atomic import read_json
from experiments.trained.arrays import (
    Array,
    Bound,
    Codes,
    Images,
    Likelihood,
    Pixels,
    Restored,
    Sampled,
)
from experiments.trained.batches import Batched
from experiments.trained.functions import (
    binarizer,
    bounder,
    decoder,
    encoder,
    likelihooder,
    sampler,
)
from experiments.trained.inputs import (
    as_bytes,
    as_codes,
    as_indices,
    as_inputs,
    as_observed,
)
from experiments.trained.restoring import restore
from experiments.training.opened import Opened, load_run

__all__ = ["TrainedRun", "open_run"]

# Of a q(z|x) whose standard deviation has no closed form here.
_SPREAD_DRAWS = 1000


def open_run(
    workdir: str | Path, *, step: int | str | None = None, data_path: str = ""
) -> "TrainedRun":
    """Opens a run to compute with it; changes nothing in it.

    Args:
      workdir: of `experiments.mnist`, or of a run of a sweep (SWEEP/runs/NAME); it may
        have been moved, or not be finished.
      step: of the checkpoint: None is the last usable one, "best" the best bound on the
        validation images among those kept.
      data_path: where the data lie now, if they have moved; "" is where they were.

    Raises:
      WorkdirError: there is no run, or the data are not those of the run.
      DataError: the data cannot be read.
      CheckpointError: there is no usable checkpoint, or not the one that was asked for.
    """
    workdir = Path(workdir)
    return TrainedRun(workdir, load_run(workdir, step=step, data_path=data_path))


class TrainedRun:
    """A run at one checkpoint. Methods take and return arrays of n datapoints.

    Each is compiled once, whatever n. Images are `[n, H, W]`, `[n, H, W, C]` or
    `[n, D]`: numbers in [0, 1], bools, or uint8 from 0 to 255.

    Attributes:
      workdir: it was opened from.
      step: of the checkpoint.
      params: the parameters, a pytree.
      config: the configuration.
      dataset: the data, bytes.
    """

    def __init__(self, workdir: Path, opened: Opened) -> None:
        """Takes a run as `experiments.training.opened` reads it."""
        self.workdir = workdir
        self.step: int = opened.step
        self.params: Any = opened.params
        self.config: ConfigDict = opened.config
        self.dataset: Dataset = opened.dataset
        self._program = opened.program
        self._opened = opened
        self._batched = Batched()

    def __repr__(self) -> str:
        """One line: the data, the latent dimensions, the checkpoint."""
        return (
            f"TrainedRun({str(self.workdir)!r}, {self.dataset.name}, "
            f"{self.config.latent_dim} latent dims, step {self.step})"
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W), or (H, W, C)."""
        return self.dataset.image_shape

    @property
    def latent_dim(self) -> int:
        """J."""
        return self.config.latent_dim

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one an epoch."""
        lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @cached_property
    def results(self) -> dict[str, Any]:
        """results.json, the numbers of the report; {} where the run is not finished."""
        path = self.workdir / "results.json"
        return read_json(path) if path.exists() else {}

    @cached_property
    def test(self) -> Images:
        """The test images, whose bound and log p(x) the report has."""
        return self._split(self._program.test, self.dataset.test.labels)

    @cached_property
    def valid(self) -> Images:
        """The validation images."""
        return self._split(self._program.valid, self.dataset.valid.labels)

    def _split(self, images: np.ndarray, labels: np.ndarray | None) -> Images:
        to_input = self._program.to_input
        xs = self._batched("to_input", lambda _, x: to_input(x), None, images)
        return Images(self._shaped(xs), labels)

    def binarize(self, key: jax.Array, images: ArrayLike) -> Array:
        """Draws binary pixels with P(x = 1) the grey level. `[n, H, W]` float32

        Args:
          key: consumed.
          images: uint8 from 0 to 255.

        Raises:
          ValueError: they are not images of the run's shape.
        """
        flat = as_bytes(images, self.image_shape)
        function, rows = binarizer(self.config.data.scale), (np.arange(len(flat)), flat)
        return self._shaped(self._batched("binarize", function, key, *rows))

    def encode(
        self,
        xs: ArrayLike,
        *,
        num_draws: int = 0,
        key: jax.Array | None = None,
        indices: ArrayLike | None = None,
    ) -> Codes:
        """q(z|x).

        Args:
          xs: images.
          num_draws: draws of each q.
          key: of the draws; an image has `fold_in(key, index)`.
          indices: `[n]` of the images; None are 0, 1, ...

        Raises:
          ValueError: xs are no images of the run's shape, or draws have no key.
          ConfigError: the run has no encoder.
        """
        self._check_encoder()
        inputs = self._inputs(xs)
        if num_draws and key is None:
            raise ValueError(
                f"num_draws is {num_draws}, but there is no key: give "
                "key=jax.random.key(0)"
            )
        shared = self.params, jax.random.key(0) if key is None else key
        rows = as_indices(indices, len(inputs)), inputs
        function = encoder(self._program, num_draws)
        return self._batched(("encode", num_draws), function, shared, *rows)

    def decode(self, zs: ArrayLike) -> Pixels:
        """p(x|z).

        Args:
          zs: `[n, J]` codes.

        Raises:
          ValueError: zs are no codes of the run's latent dimensions.
        """
        rows = as_codes(zs, self.latent_dim)
        found = self._batched("decode", decoder(self._program), self.params, rows)
        return Pixels(*map(self._shaped, found))

    def sample(self, key: jax.Array, num: int) -> Sampled:
        """Draws of the model: z of the prior, x of p(x|z).

        Args:
          key: consumed; draw i has `fold_in(key, i)`.
          num: n.

        Raises:
          ValueError: num is not positive.
        """
        if num < 1:
            raise ValueError(f"num is {num}, expected 1 or more draws")
        function = sampler(self._program, self.latent_dim)
        found = self._batched("sample", function, (self.params, key), np.arange(num))
        return found._replace(mean=self._shaped(found.mean), xs=self._shaped(found.xs))

    def reconstruct(self, xs: ArrayLike) -> Pixels:
        """p(x|z) at the mean z of q(z|x): the report's reconstructions.

        Raises:
          ValueError: xs are no images of the run's shape.
          ConfigError: the run has no encoder.
        """
        return self.decode(self.encode(xs).mean)

    def bound(self, xs: ArrayLike, *, indices: ArrayLike | None = None) -> Bound:
        """The variational bound. For `run.test.xs` it is the report's.

        Args:
          xs: images; binary, where the run's pixels are.
          indices: `[n]` of the images, which have their noise; None are 0, 1, ...

        Raises:
          ValueError: xs are no images of the run's kind.
          ConfigError: the run has no encoder.
        """
        self._check_encoder()
        inputs = self._likely_inputs(xs, is_likelihood=False)
        rows = as_indices(indices, len(inputs)), inputs
        return self._batched("bound", bounder(self._program), self.params, *rows)

    def log_likelihood(
        self,
        xs: ArrayLike,
        *,
        num_samples: int = 0,
        seed: int = 0,
        indices: ArrayLike | None = None,
    ) -> Likelihood:
        """log p(x) by importance sampling, as `experiments.mnist` reports it.

        Args:
          xs: images; binary, where the run's pixels are.
          num_samples: K; 0 is the run's `config.eval.num_samples`.
          seed: other draws; 0 are those of the report.
          indices: `[n]` of the images, which have their draws; None are 0, 1, ...

        Raises:
          ValueError: xs are no images of the run's kind.
          ConfigError: the run has no encoder, or no likelihood.
        """
        self._check_encoder()
        inputs = self._likely_inputs(xs, is_likelihood=True)
        fields = self.config.eval
        num_samples = num_samples or fields.num_samples
        if not num_samples:
            raise ValueError(
                "num_samples is 0, and so is the run's config.eval.num_samples: give "
                "a number, such as 5000"
            )
        return self._batched(
            ("log_likelihood", num_samples),
            likelihooder(self._program, fields, num_samples),
            (self.params, stream_key(Stream.LOG_LIKELIHOOD, seed)),
            as_indices(indices, len(inputs)),
            inputs,
            batch_size=fields.batch_size,
        )

    def impute(
        self,
        xs: ArrayLike,
        observed: ArrayLike,
        *,
        key: jax.Array,
        method: str = "hmc",
        num_chains: int = 16,
        num_steps: int = 128,
    ) -> Restored:
        """p(x|y) where some of x is seen: inpainting, missing data.

        Args:
          xs: images; what is not seen of them is not looked at.
          observed: True where a pixel is seen: `[H, W]` for all, or `[n, H, W]`.
          key: consumed; image i has `fold_in(key, i)`.
          method: of `trained.RESTORERS`; `experiments.reconstruct` scores them.
          num_chains: of Markov chains, or of what is resampled.
          num_steps: of each, a power of two; the first half is burn-in.

        Raises:
          ValueError: an argument cannot be.
          ConfigError: the run has no encoder, no likelihood, or a posterior over its
            weights.
        """
        inputs = np.asarray(xs)
        mask = as_observed(observed, len(inputs), self.image_shape)
        flat = inputs.reshape(len(inputs), -1)
        if flat.shape[1:] == mask.shape[1:]:  # else `as_inputs` refuses them
            inputs = np.where(mask, flat, np.zeros((), flat.dtype))
        inputs = self._likely_inputs(inputs, is_likelihood=True)
        observe = jax.vmap(aevb.masked)(mask)
        found = self._restore(inputs, observe, key, method, num_chains, num_steps)
        seen = self._shaped(mask)  # exact, where a weighted mean is rounded
        return found._replace(mean=np.where(seen, self._shaped(inputs), found.mean))

    def restore(
        self,
        ys: ArrayLike,
        observe: Any,
        *,
        key: jax.Array,
        method: str = "hmc",
        num_chains: int = 16,
        num_steps: int = 128,
    ) -> Restored:
        """p(x|y) where y is x through a known channel: denoising.

        Args:
          ys: images, as they are seen.
          observe: `aevb.flipped(0.1)`, or any `aevb.Channel` from images to images.
          key: consumed; image i has `fold_in(key, i)`.
          method: of `trained.RESTORERS`.
          num_chains: of Markov chains, or of what is resampled.
          num_steps: of each, a power of two; the first half is burn-in.

        Raises:
          ValueError: an argument cannot be.
          ConfigError: as of `impute`.
        """
        if self.config.likelihood == "bernoulli":
            flat = self._likely_inputs(ys, is_likelihood=True)
        else:
            flat = np.asarray(ys, np.float32).reshape(len(np.asarray(ys)), -1)
        observe = jax.tree.map(
            lambda leaf: np.broadcast_to(leaf, (len(flat), *np.shape(leaf))), observe
        )
        return self._restore(flat, observe, key, method, num_chains, num_steps)

    def _restore(
        self,
        ys: np.ndarray,
        observe: Any,
        key: jax.Array,
        method: str,
        num_chains: int,
        num_steps: int,
    ) -> Restored:
        self._check_encoder()
        chains = num_chains, num_steps
        found = restore(self._opened, self._batched, ys, observe, key, method, *chains)
        draws = found.draws.reshape(len(ys), -1, *self.image_shape)
        return found._replace(mean=self._shaped(found.mean), draws=draws)

    def _shaped(self, flat: Array) -> Array:
        return flat.reshape(len(flat), *self.image_shape)

    def _inputs(self, xs: ArrayLike) -> np.ndarray:
        grey = self.config.data.binarization == "grey"
        return as_inputs(xs, self.image_shape, self.config.data.scale if grey else 255)

    def _likely_inputs(self, xs: ArrayLike, *, is_likelihood: bool) -> np.ndarray:
        """Images that the likelihood is one of."""
        if is_likelihood and not self._program.is_likelihood:
            raise ConfigError(
                "this run has grey pixels under a Bernoulli, which is no likelihood, "
                "so there is no log p(x): train with "
                "--config.data.binarization=dynamic or static"
            )
        inputs = self._inputs(xs)
        if (
            self.config.data.binarization != "grey"
            and not np.isin(inputs, (0, 1)).all()
        ):
            raise ValueError(
                "xs has grey pixels, expected 0 and 1 alone, of which this run's "
                "likelihood is: draw them with run.binarize(key, images)"
            )
        return inputs

    def _check_encoder(self) -> None:
        if not self._program.has_encoder:
            raise ConfigError(
                "this run was trained by MCEM, and has no encoder: train with "
                "--config.algorithm=aevb or wake_sleep"
            )
