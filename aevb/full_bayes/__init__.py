"""Full variational Bayes: a posterior over the weights too (Appendix F).

A `DiagNormal` in place of some of the parameters is q(θ) over them; all other
parameters stay points, as the paper's φ does:

    params = {"encoder": phi, "decoder": aevb.weight_posterior(theta, scale=0.01)}

- `posterior`: q(θ), draws of it, its prior and their divergence.
- `objective`: what is maximised, and the bound of log p(X).
- `predictive`: log p(x) of a new datapoint, averaged over q(θ).

Every name here is one of `aevb` too. `aevb.nets.local_reparameterization` draws the
activations of dense layers in place of their weights.
"""

from aevb.full_bayes.objective import (
    FullBayes,
    evidence_bound,
    full_bayes_objective,
)
from aevb.full_bayes.posterior import (
    Reparameterization,
    global_reparameterization,
    sample_weights,
    sampled_weights_kl,
    weight_means,
    weight_posterior,
    weight_prior,
    weights_kl,
)
from aevb.full_bayes.predictive import predictive_model

__all__ = [
    "FullBayes",
    "Reparameterization",
    "evidence_bound",
    "full_bayes_objective",
    "global_reparameterization",
    "predictive_model",
    "sample_weights",
    "sampled_weights_kl",
    "weight_means",
    "weight_posterior",
    "weight_prior",
    "weights_kl",
]
