"""The bound of a trained model over a whole split."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import aevb
from experiments.keys import Stream, stream_key
from experiments.program import Program

__all__ = [
    "ACTIVE_THRESHOLD",
    "BoundEvaluation",
    "bound_evaluator",
    "datapoint_bound",
]

# A unit is active where Var_x(E_q[z|x]) > 0.01 (Burda et al.); the prior has 1.
ACTIVE_THRESHOLD = 0.01


class BoundEvaluation(NamedTuple):
    """The bound over a split, in nats per datapoint.

    Attributes:
      bound: `[]` mean bound (eq. 7, or eq. 6 where q and p have no closed-form KL;
        one noise draw a datapoint).
      std_error: `[]` standard error of `bound` over datapoints.
      reconstruction: `[]` mean of E_q[log p(x|z)].
      kl: `[]` mean KL(q(z|x) ‖ p(z)).
      kl_per_dim: `[J]` mean KL of each latent dimension; `[0]` where the KL is not
        known as a sum over dimensions.
      active_units: `[]` how many dimensions have Var_x(E_q[z|x]) > 0.01, z in units
        of the prior's standard deviation.
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

    def of_points(params: Any, indices: jax.Array, images: jax.Array) -> tuple:
        prior = model.prior(params)

        def one(point: tuple[jax.Array, jax.Array]) -> tuple:
            index, image = point
            bound, q = datapoint_bound(program, params, index, program.to_input(image))
            means, _ = ravel_pytree(q.mean)
            return bound, _kl_per_dim(q, aevb.prior_or_normal(prior, q.mean)), means

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
            std_error=jnp.std(elbo.value, ddof=1) / jnp.sqrt(count),
            reconstruction=jnp.mean(elbo.reconstruction),
            kl=jnp.mean(elbo.kl),
            kl_per_dim=jnp.mean(kl_per_dim[0], axis=0) if kl_per_dim else jnp.zeros(0),
            active_units=jnp.sum(
                jnp.var(means / program.latent_scale, axis=0) > ACTIVE_THRESHOLD
            ),
            means=means,
        )

    return evaluate


def datapoint_bound(
    program: Program, params: Any, index: jax.Array, x: jax.Array
) -> tuple[aevb.Elbo, Any]:
    """The bound of one datapoint, with one noise draw, and q(z|x).

    Args:
      program: of the run.
      params: its parameters.
      index: of the datapoint in its split, which has its noise.
      x: `[D]`.
    """
    key = jax.random.fold_in(stream_key(Stream.BOUND), index)
    weights = program.draw_weights(key, params)
    encode = partial(program.model.encode, weights)
    decode = partial(program.model.decode, weights)
    prior = program.model.prior(params)
    return _bound(encode, decode, key, x, prior), encode(x)


def _bound(
    encode: Any, decode: Any, key: jax.Array, x: jax.Array, prior: Any
) -> aevb.Elbo:
    try:
        return aevb.elbo(encode, decode, key, x, prior=prior)
    except TypeError:  # q and p have no closed-form KL: eq. 6 needs none
        return aevb.elbo_generic(encode, decode, key, x, prior=prior)


def _kl_per_dim(q: Any, p: Any) -> tuple[jax.Array, ...]:
    """`([J],)`, or () where it is not known: `lax.map` takes no empty array."""
    if not (_has_dimensions(q) and _has_dimensions(p)):
        return ()
    try:
        return (jax.vmap(aevb.kl_divergence)(_spread(q), _spread(p)),)
    except TypeError:  # no closed form
        return ()


def _spread(d: Any) -> Any:
    """The same with every parameter for each dimension."""
    shape = jnp.shape(d.mean)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape), d)


def _has_dimensions(d: Any) -> bool:
    """Whether a distribution is of independent dimensions, each with parameters."""
    is_family = isinstance(d, aevb.DiagNormal | aevb.Family)
    is_vector = is_family and jax.tree_util.all_leaves([d.mean])
    return is_vector and jnp.ndim(d.mean) == 1
