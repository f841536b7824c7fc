"""Estimates of the marginal likelihood log p(x) of one datapoint.

An estimate comes back with what is needed to judge it. Averages over datapoints are a
separate step: `aevb.map_datapoints` (or `jax.vmap`), then `aevb.summarize`.

- `importance`: importance sampling. `integration`: the truth, up to three dimensions.
- `annealed`, `sandwich`: annealed importance sampling, bounds from both sides;
  `temperatures`: its schedules.
- `hmc`: the Markov chain kernel, and posterior draws; `reciprocal`: Appendix D's
  estimator, which stands on them.
- `diagnostics`: heavy tails of weights, chains that disagree.

Every name here is one of `aevb` too.
"""

from aevb.marginal.annealed import (
    AnnealedEstimate,
    annealed_log_likelihood,
    annealing_step_sizes,
    nudge_step_size,
    reverse_annealed_log_likelihood,
)
from aevb.marginal.diagnostics import (
    effective_sample_size,
    pareto_k,
    split_r_hat,
)
from aevb.marginal.hmc import (
    Point,
    PosteriorDraws,
    Transition,
    hmc_step,
    point_at,
    sample_posterior,
)
from aevb.marginal.importance import (
    ImportanceEstimate,
    curve_sizes,
    importance_log_likelihood,
)
from aevb.marginal.integration import Quadrature, quadrature
from aevb.marginal.reciprocal import (
    KernelDensity,
    ReciprocalEstimate,
    fit_kernel_density,
    fit_normal,
    reciprocal_log_likelihood,
)
from aevb.marginal.sandwich import Sandwich, bdmc
from aevb.marginal.temperatures import linear_temperatures, sigmoid_temperatures

__all__ = [
    "AnnealedEstimate",
    "ImportanceEstimate",
    "KernelDensity",
    "Point",
    "PosteriorDraws",
    "Quadrature",
    "ReciprocalEstimate",
    "Sandwich",
    "Transition",
    "annealed_log_likelihood",
    "annealing_step_sizes",
    "bdmc",
    "curve_sizes",
    "effective_sample_size",
    "fit_kernel_density",
    "fit_normal",
    "hmc_step",
    "importance_log_likelihood",
    "linear_temperatures",
    "nudge_step_size",
    "pareto_k",
    "point_at",
    "quadrature",
    "reciprocal_log_likelihood",
    "reverse_annealed_log_likelihood",
    "sample_posterior",
    "sigmoid_temperatures",
    "split_r_hat",
]
