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
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import aevb
from experiments import distributed
from experiments.program import FIXED_SEED, Program
from experiments.records import Parts

__all__ = [
    "ACTIVE_THRESHOLD",
    "BoundEvaluation",
    "LikelihoodEvaluation",
    "bound_evaluator",
    "evenly_spaced",
    "likelihood_batch",
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
    program: Program, *, batch_size: int = 1000, mesh: Mesh | None = None
) -> Callable[[Any, jax.Array], BoundEvaluation]:
    """Returns `evaluate(params, images [N, D] uint8) -> BoundEvaluation`, to be jitted.

    Args:
      program: of the run.
      batch_size: datapoints at a time on a device: bounds the memory, and changes
        rounding only.
      mesh: of the axis "data", over which the datapoints are split; None is one device.
    """
    model = program.model
    key = jax.random.fold_in(jax.random.key(FIXED_SEED), 3)

    def of_points(params: Any, indices: jax.Array, images: jax.Array) -> tuple:
        encode, decode = partial(model.encode, params), partial(model.decode, params)

        def one(point: tuple[jax.Array, jax.Array]) -> tuple:
            index, image = point
            x = program.to_input(image)
            noise = jax.random.fold_in(key, index)
            q: Any = encode(x)
            prior = aevb.DiagNormal(jnp.zeros_like(q.mean), jnp.zeros_like(q.mean))
            kl_per_dim = jax.vmap(aevb.kl_divergence)(q, prior)
            return aevb.elbo(encode, decode, noise, x), kl_per_dim, q.mean

        return jax.lax.map(one, (indices, images), batch_size=batch_size)

    def evaluate(params: Any, images: jax.Array) -> BoundEvaluation:
        count = len(images)
        indices = jnp.arange(count)
        if mesh is None:
            found = of_points(params, indices, images)
        else:
            # Filled up, to the same number on each device.
            indices = jnp.minimum(jnp.arange(count + -count % mesh.size), count - 1)
            split = jax.shard_map(
                of_points,
                mesh=mesh,
                in_specs=(PartitionSpec(), *[PartitionSpec("data")] * 2),
                out_specs=PartitionSpec("data"),
            )
            found = split(params, indices, images[indices])
            everywhere = NamedSharding(mesh, PartitionSpec())
            found = jax.tree.map(lambda leaf: leaf[:count], found)
            found = jax.lax.with_sharding_constraint(found, everywhere)
        elbo, kl_per_dim, means = found
        return BoundEvaluation(
            bound=jnp.mean(elbo.value),
            std_error=jnp.std(elbo.value) / jnp.sqrt(count),
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


def likelihood_batch(
    program: Program, num_samples: int, chunk_size: int
) -> Callable[..., aevb.ImportanceEstimate]:
    """Returns `batch(params, indices [n], images [n, D], axis_name=None)`, to jit.

    That is an `aevb.ImportanceEstimate`, leaves `[n, ...]`. A datapoint's noise follows
    from its index. `axis_name` is of devices that share the samples.

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

    def batch(
        params: Any, indices: jax.Array, images: jax.Array, axis_name: str | None = None
    ) -> aevb.ImportanceEstimate:
        def one(index: jax.Array, image: jax.Array) -> aevb.ImportanceEstimate:
            return aevb.importance_log_likelihood(
                partial(model.encode, params),
                partial(model.decode, params),
                jax.random.fold_in(key, index),
                program.to_input(image),
                prior=model.prior,
                num_samples=num_samples,
                chunk_size=chunk_size,
                axis_name=axis_name,
            )

        return jax.vmap(one)(indices, images)

    return batch


def likelihood_evaluator(
    program: Program,
    *,
    num_samples: int,
    chunk_size: int,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Callable[..., LikelihoodEvaluation]:
    """Returns `evaluate(params, images, indices, progress, parts)`.

    That is a `LikelihoodEvaluation`. `progress(done, total, images_per_second)` is
    called after every batch. Batches that are in `parts` are not done again. Memory is
    that of `batch_size * chunk_size` decoder passes on each device.

    Args:
      program: of the run.
      num_samples: K.
      chunk_size: samples of a datapoint at a time.
      batch_size: datapoints at a time.
      mesh: of the axis "data": each batch is split over its devices, and where it has
        fewer datapoints than there are devices, the samples of each; None is one
        device.

    Raises:
      ValueError: the program's log p(x|z) is not a likelihood (grey pixels).
    """
    batch = likelihood_batch(program, num_samples, chunk_size)

    def compiled(size: int, params: Any, indices: Any, images: Any) -> Any:
        if mesh is None:
            return jax.jit(batch).lower(params, indices, images).compile()
        by_point = PartitionSpec() if size % mesh.size else PartitionSpec("data")
        split = jax.shard_map(
            partial(batch, axis_name="data" if size % mesh.size else None),
            mesh=mesh,
            in_specs=(PartitionSpec(), by_point, by_point),
            out_specs=by_point,
        )
        everywhere = NamedSharding(mesh, PartitionSpec())
        jitted = jax.jit(split, out_shardings=everywhere)
        return jitted.lower(params, indices, images).compile()

    programs: dict[int, Any] = {}  # by batch size, for the next call

    def evaluate(
        params: Any,
        images: np.ndarray,
        indices: np.ndarray,
        progress: Callable[[int, int, float], None] = lambda *_: None,
        parts: Parts | None = None,
    ) -> LikelihoodEvaluation:
        found: dict[str, list[float]] = {"log_likelihood": [], "ess": [], "seconds": []}
        size = min(batch_size, len(indices))
        if mesh is not None:
            params = distributed.replicate(params, mesh)
            if size >= mesh.size:
                size += -size % mesh.size
        for first in range(0, len(indices), size):
            part = None
            if parts:
                part = distributed.on_writer(partial(parts.get, str(first)))
            if part is None:
                # The last batch is filled up with its own points: one shape, one
                # compile.
                chosen = np.resize(indices[first : first + size], size)
                arguments = (chosen, images[chosen])
                if mesh is not None:
                    arguments = distributed.replicate(arguments, mesh)
                if size not in programs:
                    programs[size] = compiled(size, params, *arguments)
                start = time.perf_counter()
                estimate = jax.device_get(programs[size](params, *arguments))
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
