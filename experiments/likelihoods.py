"""The estimators of `aevb` on a trained model, each at one setting, to be measured.

Every one is `function(params, key, x) -> {name: array}` for one datapoint, in nats.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aevb
from experiments.measuring import Estimator

__all__ = [
    "AnnealingPath",
    "annealed",
    "importance",
    "inference_gap",
    "quadrature",
    "reciprocal",
    "sandwich",
    "step_sizes",
]

# Step sizes are found at this many temperatures and interpolated to any other number.
_TUNED_TEMPERATURES = 300
_TUNED_POINTS = 16
# Grid points along an axis, by the number of latent dimensions.
_GRID = {1: 1001, 2: 401, 3: 101}


class AnnealingPath(NamedTuple):
    """What annealed importance sampling walks along, whatever its length.

    Attributes:
      start: "encoder" or "prior".
      schedule: "sigmoid" or "linear".
      num_leapfrog_steps: of each transition.
      levels: `[T]` temperatures at which step sizes were found.
      log_step_sizes: `[T]` their logarithms.
    """

    start: str
    schedule: str
    num_leapfrog_steps: int
    levels: tuple[float, ...] = ()
    log_step_sizes: tuple[float, ...] = ()

    def temperatures(self, num_temperatures: int) -> jax.Array:
        """`[num_temperatures]` from 0 to 1."""
        schedules = {
            "sigmoid": aevb.sigmoid_temperatures,
            "linear": aevb.linear_temperatures,
        }
        return schedules[self.schedule](num_temperatures)

    def step_sizes(self, num_temperatures: int) -> jax.Array:
        """`[num_temperatures - 2]`, one a transition."""
        levels = self.temperatures(num_temperatures)[1:-1]
        known, values = np.array(self.levels), np.array(self.log_step_sizes)
        return jnp.exp(jnp.interp(levels, known, values))

    def encode(self, model: aevb.Model, params: Any) -> Callable[[jax.Array], Any]:
        """x `[D]` -> the distribution at temperature 0."""
        if self.start == "encoder":
            return partial(model.encode, params)
        return lambda x: _prior(model, params, x)


def _prior(model: aevb.Model, params: Any, x: jax.Array) -> Any:
    if model.prior is not None:
        return model.prior
    q: Any = model.encode(params, x)
    loc = jnp.zeros_like(q.mean)
    return aevb.DiagNormal(loc, jnp.zeros_like(loc))


def importance(
    model: aevb.Model, *, num_samples: int, chunk_size: int, batch_size: int
) -> Estimator:
    """Importance sampling with K = `num_samples` and the encoder as proposal."""

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        estimate = aevb.importance_log_likelihood(
            partial(model.encode, params),
            partial(model.decode, params),
            key,
            x,
            prior=model.prior,
            num_samples=num_samples,
            chunk_size=chunk_size,
        )
        return estimate._asdict()

    settings = {"num_samples": num_samples, "chunk_size": chunk_size}
    return Estimator(f"importance-{num_samples}", settings, function, batch_size)


def step_sizes(
    model: aevb.Model, params: Any, key: jax.Array, x: jax.Array, path: AnnealingPath
) -> AnnealingPath:
    """Finds the step sizes of a path, on datapoints that the model makes.

    They depend on no test point and on no chain that counts, so that E[w] = p(x) holds
    exactly. The geometric mean over 16 simulated datapoints is taken.

    Args:
      model: the model.
      params: its parameters.
      key: consumed.
      x: `[D]` of any values: the shape of a datapoint.
      path: without step sizes.

    Returns:
      The path with step sizes.
    """
    temperatures = path.temperatures(_TUNED_TEMPERATURES)

    def one(key: jax.Array) -> jax.Array:
        z_key, x_key, tune_key = jax.random.split(key, 3)
        z = _prior(model, params, x).sample(z_key)
        likelihood: Any = model.decode(params, z)
        return aevb.annealing_step_sizes(
            path.encode(model, params),
            partial(model.decode, params),
            tune_key,
            likelihood.sample(x_key).astype(x.dtype),
            prior=model.prior,
            temperatures=temperatures,
            num_leapfrog_steps=path.num_leapfrog_steps,
        )

    found = jax.jit(jax.vmap(one))(jax.random.split(key, _TUNED_POINTS))
    log_step_sizes = jnp.mean(jnp.log(found), axis=0)
    return path._replace(
        levels=tuple(np.asarray(temperatures[1:-1]).tolist()),
        log_step_sizes=tuple(np.asarray(log_step_sizes).tolist()),
    )


def annealed(
    model: aevb.Model,
    path: AnnealingPath,
    *,
    num_temperatures: int,
    num_chains: int,
    batch_size: int,
) -> Estimator:
    """Annealed importance sampling along `path`, with several chains a point."""

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        estimate = aevb.annealed_log_likelihood(
            path.encode(model, params),
            partial(model.decode, params),
            key,
            x,
            prior=model.prior,
            temperatures=path.temperatures(num_temperatures),
            num_chains=num_chains,
            num_leapfrog_steps=path.num_leapfrog_steps,
            step_size=path.step_sizes(num_temperatures),
        )
        return estimate._asdict()

    settings = {
        "num_temperatures": num_temperatures,
        "num_chains": num_chains,
        **path._asdict(),
    }
    return Estimator(f"annealed-{num_temperatures}", settings, function, batch_size)


def sandwich(
    model: aevb.Model,
    path: AnnealingPath,
    *,
    num_temperatures: int,
    num_chains: int,
    num_samples: int,
    chunk_size: int,
    batch_size: int,
) -> Estimator:
    """Bidirectional Monte Carlo on a datapoint that the model makes from the key.

    Importance sampling of the same datapoint stands beside: there the upper bound tells
    its bias, too.
    """

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        both_key, importance_key = jax.random.split(key)
        decode: Any = partial(model.decode, params)
        both = aevb.bdmc(
            path.encode(model, params),
            decode,
            both_key,
            prior=_prior(model, params, x),
            temperatures=path.temperatures(num_temperatures),
            num_chains=num_chains,
            num_leapfrog_steps=path.num_leapfrog_steps,
            step_size=path.step_sizes(num_temperatures),
        )
        sampled = aevb.importance_log_likelihood(
            partial(model.encode, params),
            decode,
            importance_key,
            both.x,
            prior=model.prior,
            num_samples=num_samples,
            chunk_size=chunk_size,
        )
        return {
            "log_likelihood": both.lower.log_likelihood,
            "upper": both.upper.log_likelihood,
            "acceptance": both.lower.acceptance,
            "importance": sampled.log_likelihood,
        }

    settings = {
        "num_temperatures": num_temperatures,
        "num_chains": num_chains,
        "num_samples": num_samples,
        "chunk_size": chunk_size,
        **path._asdict(),
    }
    return Estimator(f"sandwich-{num_temperatures}", settings, function, batch_size)


def reciprocal(
    model: aevb.Model,
    *,
    num_chains: int,
    num_samples: int,
    num_burn_in: int,
    num_leapfrog_steps: int,
    batch_size: int,
) -> Estimator:
    """Appendix D, with both density estimators on the same posterior draws."""
    from aevb import hmc

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        start_key, draw_key = jax.random.split(key)
        q, decode = model.encode(params, x), partial(model.decode, params)
        draws = hmc.sample_posterior(
            decode,
            draw_key,
            x,
            jax.vmap(q.sample)(jax.random.split(start_key, num_chains)),
            prior=model.prior,
            num_samples=num_samples,
            num_burn_in=num_burn_in,
            num_leapfrog_steps=num_leapfrog_steps,
        )
        normal = aevb.reciprocal_log_likelihood(decode, x, draws.zs, prior=model.prior)
        kernels = aevb.reciprocal_log_likelihood(
            decode,
            x,
            draws.zs[:, :: max(1, num_samples // 100)],
            prior=model.prior,
            fit=aevb.fit_kernel_density,
        )
        return {
            **normal._asdict(),
            "kernel_density": kernels.log_likelihood,
            "kernel_density_std_error": kernels.std_error,
            "acceptance": jnp.mean(draws.acceptance),
            "energy_error": jnp.max(draws.energy_error),
            "r_hat": jnp.max(draws.r_hat),
        }

    settings = {
        "num_chains": num_chains,
        "num_samples": num_samples,
        "num_burn_in": num_burn_in,
        "num_leapfrog_steps": num_leapfrog_steps,
    }
    return Estimator("reciprocal", settings, function, batch_size)


def quadrature(model: aevb.Model, *, latent_dim: int) -> Estimator:
    """The truth, for up to three latent dimensions: a grid on the prior's scale, and
    a second one around the posterior that the first one found.
    """
    num_points = _GRID[latent_dim]

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        integrate = partial(
            aevb.quadrature,
            partial(model.decode, params),
            x,
            latent_dim=latent_dim,
            num_points=num_points,
            prior=model.prior,
        )
        first = integrate()
        # A posterior that falls between the points of the first grid has a covariance
        # near zero there: its own scale is at least half a spacing.
        spacing = 18.0 / (num_points - 1)
        covariance = first.covariance + (0.5 * spacing) ** 2 * jnp.eye(latent_dim)
        second = integrate(loc=first.mean, scale_tril=jnp.linalg.cholesky(covariance))
        return {
            "log_likelihood": second.log_likelihood,
            "first_grid": first.log_likelihood,
        }

    return Estimator("quadrature", {"num_points": num_points}, function, 1)


def inference_gap(
    model: aevb.Model, *, num_steps: int, num_samples: int, batch_size: int
) -> Estimator:
    """The bound of the encoder's q and of the best Gaussian for each datapoint."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, num_steps, 0.1))

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        optimize_key, bound_key = jax.random.split(key)
        q: Any = model.encode(params, x)
        decode = partial(model.decode, params)
        local = aevb.optimize_posterior(
            decode,
            optimize_key,
            x,
            q,
            prior=model.prior,
            optimizer=optimizer,
            num_steps=num_steps,
            num_samples=8,
        )

        def bound(q: Any) -> jax.Array:
            # The same noise for both: their difference is what is wanted.
            def one(key: jax.Array) -> jax.Array:
                estimate = aevb.elbo(
                    lambda _: q, decode, key, x, prior=model.prior, num_samples=100
                )
                return estimate.value

            return jnp.mean(jax.lax.map(one, keys))

        keys = jax.random.split(bound_key, -(-num_samples // 100))
        return {"local_bound": bound(local.posterior), "bound": bound(q)}

    settings = {"num_steps": num_steps, "num_samples": num_samples}
    return Estimator("inference_gap", settings, function, batch_size)
