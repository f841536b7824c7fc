"""What a trained model is worth: its bound on a whole split, and log p(x).

Every datapoint weighs the same, a short last batch too, and its noise depends on its
index alone: a subset gives the numbers that the whole split gives for those points.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from experiments.program import FIXED_SEED, Program
from experiments.records import Parts

__all__ = [
    "ACTIVE_THRESHOLD",
    "BoundEvaluation",
    "LikelihoodEvaluation",
    "bound_evaluator",
    "evenly_spaced",
    "likelihood_evaluator",
]

# Burda et al.: a unit u is active where Var_x(E_q[u|x]) > 0.01.
ACTIVE_THRESHOLD = 0.01


class BoundEvaluation(NamedTuple):
    """The bound over a split, in nats per datapoint.

    Attributes:
      bound: `[]` mean bound (eq. 7, one noise draw a datapoint).
      std_error: `[]` standard error of `bound` over datapoints.
      reconstruction: `[]` mean of E_q[log p(x|z)].
      kl: `[]` mean KL(q(z|x) ‖ p(z)).
      kl_per_dim: `[J]` mean KL of each latent dimension.
      active_units: `[]` how many dimensions have Var_x(E_q[z|x]) > 0.01.
      means: `[N, J]` the posterior means.
    """

    bound: jax.Array
    std_error: jax.Array
    reconstruction: jax.Array
    kl: jax.Array
    kl_per_dim: jax.Array
    active_units: jax.Array
    means: jax.Array


def bound_evaluator(
    program: Program, *, batch_size: int = 1000
) -> Callable[[Any, jax.Array], BoundEvaluation]:
    """Returns `evaluate(params, images [N, D] uint8) -> BoundEvaluation`, to be jitted.

    `batch_size` bounds the memory; it changes rounding only.
    """
    model = program.model
    key = jax.random.fold_in(jax.random.key(FIXED_SEED), 3)

    def evaluate(params: Any, images: jax.Array) -> BoundEvaluation:
        encode, decode = partial(model.encode, params), partial(model.decode, params)

        def one(point: tuple[jax.Array, jax.Array]) -> tuple:
            index, image = point
            x = program.to_input(image)
            noise = jax.random.fold_in(key, index)
            q: Any = encode(x)
            prior = aevb.DiagNormal(jnp.zeros_like(q.mean), jnp.zeros_like(q.mean))
            kl_per_dim = jax.vmap(aevb.kl_divergence)(q, prior)
            return aevb.elbo(encode, decode, noise, x), kl_per_dim, q.mean

        points = (jnp.arange(len(images)), images)
        elbo, kl_per_dim, means = jax.lax.map(one, points, batch_size=batch_size)
        return BoundEvaluation(
            bound=jnp.mean(elbo.value),
            std_error=jnp.std(elbo.value) / jnp.sqrt(len(images)),
            reconstruction=jnp.mean(elbo.reconstruction),
            kl=jnp.mean(elbo.kl),
            kl_per_dim=jnp.mean(kl_per_dim, axis=0),
            active_units=jnp.sum(jnp.var(means, axis=0) > ACTIVE_THRESHOLD),
            means=means,
        )

    return evaluate


class LikelihoodEvaluation(NamedTuple):
    """Importance-sampled log p(x) of some datapoints.

    Attributes:
      indices: `[n]` which datapoints of the split.
      log_likelihood: `[n]` in nats.
      ess: `[n]` effective sample sizes.
      images_per_second: all of a datapoint's samples count as one image.
    """

    indices: np.ndarray
    log_likelihood: np.ndarray
    ess: np.ndarray
    images_per_second: float

    def summary(self) -> dict[str, float]:
        """Mean and standard error over datapoints (nats), and the spread of the ESS."""
        values = self.log_likelihood.astype(np.float64)
        return {
            "log_likelihood": float(values.mean()),
            "std_error": float(values.std(ddof=1) / np.sqrt(len(values)))
            if len(values) > 1
            else float("nan"),
            "ess_mean": float(self.ess.mean()),
            "ess_5th_percentile": float(np.percentile(self.ess, 5)),
        }


def evenly_spaced(num_points: int, num_wanted: int) -> np.ndarray:
    """Indices of `num_wanted` of `num_points`, evenly spaced; 0 or too many: all."""
    if not 0 < num_wanted < num_points:
        return np.arange(num_points)
    return np.arange(num_wanted) * num_points // num_wanted


def likelihood_evaluator(
    program: Program, *, num_samples: int, chunk_size: int, batch_size: int
) -> Callable[..., LikelihoodEvaluation]:
    """Returns `evaluate(params, images, indices, progress, parts)`.

    That is a `LikelihoodEvaluation`. `progress(done, total, images_per_second)` is
    called after every batch. Batches that are in `parts` are not done again. Memory is
    that of `batch_size * chunk_size` decoder passes.

    Raises:
      ValueError: the program's log p(x|z) is not a likelihood (grey pixels).
    """
    if not program.is_likelihood:
        raise ValueError(
            "grey pixels under a Bernoulli have no likelihood, so there is no log p(x) "
            "to estimate: train with data.binarization=dynamic or static"
        )
    model = program.model
    key = jax.random.fold_in(jax.random.key(FIXED_SEED), 4)

    @jax.jit
    def batch(params: Any, indices: jax.Array, images: jax.Array) -> Any:
        def one(index: jax.Array, image: jax.Array) -> aevb.ImportanceEstimate:
            return aevb.importance_log_likelihood(
                partial(model.encode, params),
                partial(model.decode, params),
                jax.random.fold_in(key, index),
                program.to_input(image),
                prior=model.prior,
                num_samples=num_samples,
                chunk_size=chunk_size,
            )

        return jax.vmap(one)(indices, images)

    def evaluate(
        params: Any,
        images: np.ndarray,
        indices: np.ndarray,
        progress: Callable[[int, int, float], None] = lambda *_: None,
        parts: Parts | None = None,
    ) -> LikelihoodEvaluation:
        found: dict[str, list[float]] = {"log_likelihood": [], "ess": [], "seconds": []}
        size = min(batch_size, len(indices))
        compiled = None
        for first in range(0, len(indices), size):
            part = parts.get(str(first)) if parts else None
            if part is None:
                # The last batch is filled up with its own points: one shape, one
                # compile.
                chosen = np.resize(indices[first : first + size], size)
                if compiled is None:
                    compiled = batch.lower(params, chosen, images[chosen]).compile()
                start = time.perf_counter()
                estimate = jax.device_get(compiled(params, chosen, images[chosen]))
                part = {
                    "log_likelihood": estimate.log_likelihood.tolist(),
                    "ess": estimate.ess.tolist(),
                    "seconds": [time.perf_counter() - start],
                }
                if parts:
                    parts.put(str(first), part)
            for name, values in found.items():
                values += part[name]
            done = min(first + size, len(indices))
            progress(done, len(indices), done / sum(found["seconds"]))
        return LikelihoodEvaluation(
            indices,
            np.asarray(found["log_likelihood"][: len(indices)], np.float32),
            np.asarray(found["ess"][: len(indices)], np.float32),
            len(indices) / sum(found["seconds"]),
        )

    return evaluate
