"""Auto-Encoding Variational Bayes (Kingma and Welling, arXiv 1312.6114) in JAX.

Estimators are pure functions of *one* datapoint; callers batch them with `jax.vmap`:

>>> from functools import partial
>>> import jax, jax.numpy as jnp, aevb
>>> encode = lambda x: aevb.DiagNormal(x[:2], jnp.zeros(2))
>>> decode = lambda z: aevb.Bernoulli(jnp.concatenate([z, -z]))
>>> bound = jax.vmap(partial(aevb.elbo, encode, decode))
>>> bound(jax.random.split(jax.random.key(0), 3), jnp.ones((3, 4))).value.shape
(3,)

`aevb.nets` (flax) and `aevb.testing` are imported by name.
"""

from aevb.distributions import (
    Bernoulli,
    DiagNormal,
    MultivariateNormal,
    kl_divergence,
)
from aevb.estimators import Elbo, elbo, elbo_generic, iwae, log_weight
from aevb.marginal import ImportanceEstimate, importance_log_likelihood
from aevb.objectives import dataset_bound, log_weight_prior, map_objective
from aevb.train import epoch, fit, gradient_algorithm
from aevb.types import (
    Algorithm,
    Decode,
    Encode,
    Info,
    Likelihood,
    Model,
    Objective,
    Posterior,
    State,
)

__all__ = [
    "Algorithm",
    "Bernoulli",
    "Decode",
    "DiagNormal",
    "Elbo",
    "Encode",
    "ImportanceEstimate",
    "Info",
    "Likelihood",
    "Model",
    "MultivariateNormal",
    "Objective",
    "Posterior",
    "State",
    "dataset_bound",
    "elbo",
    "elbo_generic",
    "epoch",
    "fit",
    "gradient_algorithm",
    "importance_log_likelihood",
    "iwae",
    "kl_divergence",
    "log_weight",
    "log_weight_prior",
    "map_objective",
]
