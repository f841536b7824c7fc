"""The predictive density of a new datapoint, averaged over the posterior of weights."""

from collections.abc import Mapping

import jax

from aevb.calls import prior_or_normal
from aevb.distributions import Product
from aevb.full_bayes.posterior import (
    Reparameterization,
    global_reparameterization,
    insert_noise,
    noise_distribution,
    posteriors,
    weight_means,
)
from aevb.types import Likelihood, Model, PyTree

__all__ = ["predictive_model"]


def predictive_model(
    model: Model,
    x: jax.Array,
    *,
    reparameterization: Reparameterization = global_reparameterization,
) -> Model:
    """A model whose p(x) is the predictive density E_q(θ)[p(x|θ)] of `model`.

    Its latent is {"noise": ζ, "z": z} with the prior p(ζ) p(z), the decoder
    p(x|z, θ = h(ζ)) and the encoder q(ζ, z|x) = p(ζ) q(z|x). Every estimator of log
    p(x) works on it as on any other: in importance sampling each draw of z has its own
    θ, and HMC and annealing move both. Its `elbo` is E_q(θ)[L(x; θ)], below them.

    With `aevb.nets.local_reparameterization` ζ is one number a unit in place of one a
    weight. For one pair (x, z) the output has the same distribution, so p(x) is the
    same, and a draw costs two matrix products a layer.

    The encoder is only a proposal: where it has a posterior its mean is taken. Then
    pass `weight_means` of that part, or the noise has dimensions that change nothing.

    Args:
      model: of plain weights.
      x: `[D]` gives shapes and dtype only, as in `Model.init`.
      reparameterization: how weights are drawn.

    Returns:
      `Model` of the parameters with posteriors, each with a name in ζ; `init` is that
      of `model`, of points alone. Its functions raise a ValueError where no part of the
      parameters has a posterior, or where the prior p(z) has one.

    >>> import jax.numpy as jnp
    >>> from aevb import DiagNormal, weight_posterior
    >>> model = Model(
    ...     init=lambda key, x: {"decoder": jnp.ones(1)},
    ...     encode=lambda params, x: DiagNormal(x / 2, jnp.zeros(1)),
    ...     decode=lambda params, z: DiagNormal(params["decoder"] * z, jnp.zeros(1)))
    >>> x = jnp.zeros(1)
    >>> params = {"decoder": weight_posterior(jnp.ones(1), scale=0.1)}
    >>> predictive = predictive_model(model, x)
    >>> latent = predictive.encode(params, x).sample(jax.random.key(0))
    >>> print(jax.tree.map(jnp.shape, latent))
    {'noise': {'decoder': (1,)}, 'z': (1,)}
    """

    def noise(params: PyTree) -> Product:
        return noise_distribution(params, reparameterization)

    def encode(params: PyTree, x: jax.Array) -> Product:
        q = model.encode(weight_means(params), x)
        return Product({"noise": noise(params), "z": q})

    def decode(params: PyTree, latent: PyTree) -> Likelihood:
        weights = insert_noise(params, latent["noise"], reparameterization)
        return model.decode(weights, latent["z"])

    def prior(params: PyTree) -> Product:
        for name, q in posteriors(params).items():
            whole = name == "params" and isinstance(q.loc, Mapping)
            if name.split("/")[0] != "prior" and not (whole and "prior" in q.loc):
                continue
            raise ValueError(
                "the parameters of the prior p(z) have a posterior, expected points: z "
                "and the noise would not be independent. Pass aevb.weight_means of them"
            )
        weights = weight_means(params)
        z = jax.eval_shape(
            lambda x: model.encode(weights, x).sample(jax.random.key(0)), x
        )
        p = prior_or_normal(model.prior(weights), z)
        return Product({"noise": noise(params), "z": p})

    return Model(model.init, encode, decode, prior)
