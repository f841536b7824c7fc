"""The estimators of `aevb` on a trained model, each at one setting.

Each is a function `(params, key, x) -> {name: array}` of one datapoint, in nats, with a
row about it (`Kind`). `experiments.evaluation.registry` makes them part of the
programs; those that anneal are in `experiments.evaluation.annealing`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import aevb
from experiments.evaluation.kinds import Estimator, Function, Kind
from experiments.keys import Stream

__all__ = [
    "IMPORTANCE",
    "INFERENCE_GAP",
    "QUADRATURE",
    "RECIPROCAL",
    "importance",
    "inference_gap",
    "quadrature",
    "reciprocal",
]

# Grid points along an axis, by the number of latent dimensions.
_GRID = {1: 1001, 2: 401, 3: 101}

IMPORTANCE = Kind(
    name="importance",
    label=lambda settings: f"importance sampling, K = {settings['num_samples']:,}",
    stream=Stream.LOG_LIKELIHOOD,
    meaning="lower",
    size="num_samples",
    remedy="Importance sampling is below where the encoder misses mass of the "
    "posterior (see k-hat).",
)
RECIPROCAL = Kind(
    name="reciprocal",
    label=lambda _: "Appendix D, fitted Gaussian",
    stream=Stream.RECIPROCAL,
    meaning="upper",
    variants={"kernel_density": "Appendix D, kernel density"},
    remedy="Appendix D is above where its density has heavier tails than the "
    "posterior, and on either side where the chain has not mixed (see R-hat).",
)
QUADRATURE = Kind(
    name="quadrature",
    label=lambda _: "quadrature",
    stream=Stream.QUADRATURE,
    meaning="truth",
)
INFERENCE_GAP = Kind(
    name="inference_gap",
    label=lambda _: "inference gap",
    stream=Stream.INFERENCE_GAP,
    estimates="bound",
)


def importance(
    model: aevb.Model, *, num_samples: int, chunk_size: int, batch_size: int
) -> Estimator:
    """Importance sampling with K = `num_samples` and the encoder as proposal."""

    def across(axis_name: str | None) -> Function:
        def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
            estimate = aevb.importance_log_likelihood(
                partial(model.encode, params),
                partial(model.decode, params),
                key,
                x,
                prior=model.prior(params),
                num_samples=num_samples,
                chunk_size=chunk_size,
                axis_name=axis_name,
            )
            return estimate._asdict()

        return function

    settings = {"num_samples": num_samples, "chunk_size": chunk_size}
    return Estimator(IMPORTANCE, settings, across(None), batch_size, across)


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

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        start_key, draw_key = jax.random.split(key)
        q, decode = model.encode(params, x), partial(model.decode, params)
        draws = aevb.sample_posterior(
            decode,
            draw_key,
            x,
            jax.vmap(q.sample)(jax.random.split(start_key, num_chains)),
            prior=model.prior(params),
            num_samples=num_samples,
            num_burn_in=num_burn_in,
            num_leapfrog_steps=num_leapfrog_steps,
        )
        normal = aevb.reciprocal_log_likelihood(
            decode, x, draws.zs, prior=model.prior(params)
        )
        kernels = aevb.reciprocal_log_likelihood(
            decode,
            x,
            draws.zs[:, :: max(1, num_samples // 100)],
            prior=model.prior(params),
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
    return Estimator(RECIPROCAL, settings, function, batch_size)


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
            prior=model.prior(params),
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

    return Estimator(QUADRATURE, {"num_points": num_points}, function, 1)


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
            prior=model.prior(params),
            optimizer=optimizer,
            num_steps=num_steps,
            num_samples=8,
        )

        def bound(q: Any) -> jax.Array:
            # The same noise for both: their difference is what is wanted.
            def one(key: jax.Array) -> jax.Array:
                estimate = aevb.elbo(
                    lambda _: q,
                    decode,
                    key,
                    x,
                    prior=model.prior(params),
                    num_samples=100,
                )
                return estimate.value

            return jnp.mean(jax.lax.map(one, keys))

        keys = jax.random.split(bound_key, -(-num_samples // 100))
        return {"local_bound": bound(local.posterior), "bound": bound(q)}

    settings = {"num_steps": num_steps, "num_samples": num_samples}
    return Estimator(INFERENCE_GAP, settings, function, batch_size)
