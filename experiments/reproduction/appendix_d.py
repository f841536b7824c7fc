"""log p(x) by Appendix D's estimator, by importance sampling and by quadrature.

None of the paper's three methods is given a better start than the others: the chains of
every datapoint begin at draws of the prior, chosen by their importance weights, and not
at an encoder, which MCEM does not have. The posteriors are narrow and have several
modes: of 200 draws, those of a tenth of the points missed the one that counts, by up to
110 nats.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import aevb
from aevb.products import matmul
from experiments.evaluation.kinds import Estimator, Kind
from experiments.keys import Stream, stream_key

__all__ = ["APPENDIX_D", "AppendixE", "appendix_d"]

APPENDIX_D = Kind(
    name="appendix_d",
    label=lambda _: "Appendix D, kernel density",
    stream=Stream.APPENDIX_D,
    meaning="upper",
)


class AppendixE(NamedTuple):
    """How Figure 3 is measured: the constants of Appendix E, and what it leaves open.

    Attributes:
      num_points: the first so many points of either split.
      num_chains: of each point.
      num_draws: of each chain; half of all fit the density, half are summed over.
      num_burn_in: transitions before the draws.
      num_leapfrog_steps: of a transition.
      thinning: transitions a draw.
      num_prior_draws: that the chains may begin at. The same for all datapoints, so
        that each is decoded once for many of them.
      num_quadrature: points of which quadrature has the truth; that of the others
        follows by regression on importance sampling.
      num_modes: chains that look for the mode of a point which counts.
      coarse_grid: points an axis of the grid around each of these.
      grid: points an axis of the fine grid around the best.
      num_importance: importance samples of each of the proposal's parts.
      wider: how much wider than the draws of a chain its part is.
      batch_size: points at once; changes rounding alone.
    """

    num_points: int = 1000
    num_chains: int = 4
    num_draws: int = 25
    num_burn_in: int = 30
    num_leapfrog_steps: int = 4
    thinning: int = 1
    num_prior_draws: int = 2**15
    num_quadrature: int = 50
    num_modes: int = 8
    coarse_grid: int = 15
    grid: int = 31
    num_importance: int = 100
    wider: float = 1.3
    batch_size: int = 100

    def identity(self, with_truth: bool) -> dict[str, Any]:
        """What an estimate of one point depends on."""
        return {
            "num_chains": self.num_chains,
            "num_samples": self.num_draws,
            "num_burn_in": self.num_burn_in,
            "num_leapfrog_steps": self.num_leapfrog_steps,
            "thinning": self.thinning,
            "num_prior_draws": self.num_prior_draws,
            "importance": [self.num_importance, self.wider],
            "grid": (
                [self.coarse_grid, self.grid, self.num_modes] if with_truth else []
            ),
        }


_CHUNK = 2**11  # prior draws decoded at once


def appendix_d(
    model: aevb.Model, latent_dim: int, how: AppendixE, *, with_truth: bool
) -> Estimator:
    """Appendix D's estimator of log p(x) with the constants of Appendix E.

    Args:
      model: whose decoder and prior are used; no encoder is.
      latent_dim: J, at most 3 with the truth.
      how: the constants.
      with_truth: integrate on grids as well. Chains of their own look for modes, and a
        coarse grid around each finds the best; a fine grid lies around the mean and
        covariance that it gives, and once more around those that this one gives. A
        posterior of several modes that count has more than the one.
    """

    def starts(params: Any) -> jax.Array:
        p = aevb.prior_or_normal(model.prior(params), jnp.zeros(latent_dim))
        keys = jax.random.split(stream_key(Stream.CHAIN_STARTS), how.num_prior_draws)
        return jax.vmap(p.sample)(keys)

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        decode, prior = partial(model.decode, params), model.prior(params)
        choice_key, draw_key, again_key, truth_key, key = jax.random.split(key, 5)
        zs = starts(params)
        log_weights = jax.lax.map(
            lambda z: _log_likelihood(decode(z), x),
            zs,
            batch_size=min(_CHUNK, how.num_prior_draws),
        )

        def sample(key: jax.Array, chosen: jax.Array) -> aevb.PosteriorDraws:
            return aevb.sample_posterior(
                decode,
                key,
                x,
                zs[chosen],
                prior=prior,
                num_samples=how.num_draws,
                num_burn_in=how.num_burn_in,
                num_leapfrog_steps=how.num_leapfrog_steps,
                thinning=how.thinning,
                target_acceptance=0.9,
            )

        chosen = jax.random.choice(
            choice_key,
            how.num_prior_draws,
            (how.num_chains,),
            p=jax.nn.softmax(log_weights),
        )
        draws = sample(draw_key, chosen)
        kernels = aevb.reciprocal_log_likelihood(
            decode, x, draws.zs, prior=prior, fit=aevb.fit_kernel_density
        )
        found = {
            **kernels._asdict(),
            "acceptance": jnp.mean(draws.acceptance),
            "r_hat": jnp.max(draws.r_hat),
            "importance": _importance(decode, key, x, draws.zs, prior, how),
        }
        if with_truth:
            # By their weights too, but no draw twice: other modes are looked at.
            noise = jax.random.gumbel(again_key, log_weights.shape)
            _, chosen = jax.lax.top_k(log_weights + noise, how.num_modes)
            others = sample(truth_key, chosen)
            found |= _integrals(decode, x, others.zs, prior, how)
        return found

    batch_size = 1 if with_truth else how.batch_size
    return Estimator(APPENDIX_D, how.identity(with_truth), function, batch_size)


def _log_likelihood(likelihood: Any, x: jax.Array) -> jax.Array:
    """log p(x|z), `[]`; for many points and many z the work of one matrix product.

    log p(x|z) = Σ_d x_d l_d + log p(0|z) under a Bernoulli, and the second is of no
    point: under `jax.vmap` over points it is computed once a z.
    """
    if not isinstance(likelihood, aevb.Bernoulli):
        return likelihood.log_prob(x)
    none = likelihood.log_prob(jnp.zeros_like(x))
    return none + matmul(x, likelihood.logits)


def _importance(
    decode: Any,
    key: jax.Array,
    x: jax.Array,
    zs: jax.Array,
    prior: Any,
    how: AppendixE,
) -> jax.Array:
    """Importance sampling from normals around the chains, and from the prior.

    A lower bound of log p(x) in expectation, and in a few dimensions a close one. It
    is not too high, as Appendix D's estimate is where half of the draws lie in another
    mode than the other half.

    Args:
      decode: z `[J]` -> p(x|z).
      key: consumed.
      x: `[D]` one datapoint.
      zs: `[C, L, J]` draws of p(z|x), of C chains.
      prior: p(z), or None.
      how: the number of samples and their spread.
    """
    latent_dim = zs.shape[-1]
    p = aevb.prior_or_normal(prior, jnp.zeros(latent_dim))

    def around(own: jax.Array) -> aevb.MultivariateNormal:
        # Wider than the draws are; a chain that did not move has no width of its own.
        covariance = how.wider**2 * jnp.cov(own.T) + 1e-8 * jnp.eye(latent_dim)
        return aevb.MultivariateNormal(
            own.mean(axis=0), jnp.linalg.cholesky(covariance)
        )

    normals = jax.vmap(around)(zs)
    keys = jax.random.split(key, (len(zs) + 1, how.num_importance))
    draws = jax.vmap(lambda q, keys: jax.vmap(q.sample)(keys))(normals, keys[1:])
    draws = jnp.concatenate([draws, jax.vmap(p.sample)(keys[0])[None]])

    def log_weight(z: jax.Array) -> jax.Array:
        each = jax.vmap(lambda q: q.log_prob(z))(normals)
        each = jnp.append(each, p.log_prob(z))
        log_q = jax.scipy.special.logsumexp(each) - jnp.log(len(each))
        return aevb.log_joint(decode, z, x, prior=prior) - log_q

    log_weights = jax.vmap(log_weight)(draws.reshape(-1, latent_dim))
    return jax.scipy.special.logsumexp(log_weights) - jnp.log(len(log_weights))


def _integrals(
    decode: Any, x: jax.Array, zs: jax.Array, prior: Any, how: AppendixE
) -> dict[str, jax.Array]:
    """Quadrature around the best of several chains; zs `[C, L, J]`."""
    latent_dim = zs.shape[-1]

    def integrate(num_points: int, loc: jax.Array, scale_tril: jax.Array) -> Any:
        return aevb.quadrature(
            decode,
            x,
            latent_dim=latent_dim,
            num_points=num_points,
            prior=prior,
            loc=loc,
            scale_tril=scale_tril,
        )

    def around(own: jax.Array) -> Any:
        fitted = aevb.fit_normal(own)
        return integrate(how.coarse_grid, fitted.loc, fitted.scale_tril)

    def again(coarse: Any) -> Any:
        return integrate(how.grid, coarse.mean, jnp.linalg.cholesky(coarse.covariance))

    coarse = jax.lax.map(around, zs)
    best = jnp.nanargmax(coarse.log_likelihood)
    first = again(jax.tree.map(lambda leaf: leaf[best], coarse))
    return {"first": first.log_likelihood, "truth": again(first).log_likelihood}
