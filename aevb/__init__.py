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

from aevb.amortization import (
    InferenceGap,
    LocalPosterior,
    inference_gap,
    optimize_posterior,
)
from aevb.calls import check_binary, prior_or_normal
from aevb.datapoints import (
    SampledMean,
    Summary,
    bits_per_dim,
    map_datapoints,
    sampled_mean,
    summarize,
)
from aevb.distributions import (
    Bernoulli,
    DiagNormal,
    MultivariateNormal,
    kl_divergence,
)
from aevb.estimators import (
    Elbo,
    elbo,
    elbo_generic,
    iwae,
    log_joint,
    log_weight,
)
from aevb.marginal import (
    AnnealedEstimate,
    ImportanceEstimate,
    KernelDensity,
    Point,
    PosteriorDraws,
    Quadrature,
    ReciprocalEstimate,
    Sandwich,
    Transition,
    annealed_log_likelihood,
    annealing_step_sizes,
    bdmc,
    curve_sizes,
    fit_kernel_density,
    fit_normal,
    hmc_step,
    importance_log_likelihood,
    linear_temperatures,
    nudge_step_size,
    pareto_k,
    point_at,
    quadrature,
    reciprocal_log_likelihood,
    reverse_annealed_log_likelihood,
    sample_posterior,
    sigmoid_temperatures,
    split_r_hat,
)
from aevb.objectives import dataset_bound, log_weight_prior, map_objective
from aevb.train import epoch, epoch_batches, fit, gradient_algorithm, scan_updates
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
    "AnnealedEstimate",
    "Bernoulli",
    "Decode",
    "DiagNormal",
    "Elbo",
    "Encode",
    "ImportanceEstimate",
    "InferenceGap",
    "Info",
    "KernelDensity",
    "Likelihood",
    "LocalPosterior",
    "Model",
    "MultivariateNormal",
    "Objective",
    "Point",
    "Posterior",
    "PosteriorDraws",
    "Quadrature",
    "ReciprocalEstimate",
    "SampledMean",
    "Sandwich",
    "State",
    "Summary",
    "Transition",
    "annealed_log_likelihood",
    "annealing_step_sizes",
    "bdmc",
    "bits_per_dim",
    "check_binary",
    "curve_sizes",
    "dataset_bound",
    "elbo",
    "elbo_generic",
    "epoch",
    "epoch_batches",
    "fit",
    "fit_kernel_density",
    "fit_normal",
    "gradient_algorithm",
    "hmc_step",
    "importance_log_likelihood",
    "inference_gap",
    "iwae",
    "kl_divergence",
    "linear_temperatures",
    "log_joint",
    "log_weight",
    "log_weight_prior",
    "map_datapoints",
    "map_objective",
    "nudge_step_size",
    "optimize_posterior",
    "pareto_k",
    "point_at",
    "prior_or_normal",
    "quadrature",
    "reciprocal_log_likelihood",
    "reverse_annealed_log_likelihood",
    "sample_posterior",
    "sampled_mean",
    "scan_updates",
    "sigmoid_temperatures",
    "split_r_hat",
    "summarize",
]
