"""What x was, given what was seen of it: the paper's third problem (section 2.1).

y is seen of x through a channel (`aevb.observations`). Draws of p(z|y) come from any
sampler that takes a decoder: `aevb.sample_posterior` (HMC), or `aevb.weighted_draws`
and `aevb.annealed_log_likelihood` with `aevb.resample`. They also come from the kernels
of this package, which move z and x in turn. Answers and scores take the draws, whatever
made them.

- `proposals`: the encoder of several guesses of x, as one distribution over z.
- `chains`: pseudo-Gibbs, Metropolis-within-Gibbs, its adaptive collapsed form.
- `resampling`: sampling-importance-resampling, and its latent-adaptive form (LAIR).
- `answers`: draws, means, modes, intervals, and the score of draws.
- `conditional`: log p(x|y) by AIS, and from both sides on simulated data.

Every name here is one of `aevb` too.
"""

from aevb.imputation.answers import (
    Imputations,
    Interval,
    credible_interval,
    marginal_mode,
    posterior_mean,
    predictive_log_prob,
    restored_draws,
    sample_imputations,
)
from aevb.imputation.chains import (
    ChainInfo,
    Chains,
    Kernel,
    collapsed_metropolis_within_gibbs,
    metropolis_within_gibbs,
    pseudo_gibbs,
)
from aevb.imputation.conditional import (
    ConditionalEstimate,
    ConditionalSandwich,
    conditional_bdmc,
    conditional_log_likelihood,
)
from aevb.imputation.proposals import EncoderMixture, encoder_mixture
from aevb.imputation.resampling import (
    WeightedDraws,
    latent_adaptive_resampling,
    resample,
    weighted_draws,
)

__all__ = [
    "ChainInfo",
    "Chains",
    "ConditionalEstimate",
    "ConditionalSandwich",
    "EncoderMixture",
    "Imputations",
    "Interval",
    "Kernel",
    "WeightedDraws",
    "collapsed_metropolis_within_gibbs",
    "conditional_bdmc",
    "conditional_log_likelihood",
    "credible_interval",
    "encoder_mixture",
    "latent_adaptive_resampling",
    "marginal_mode",
    "metropolis_within_gibbs",
    "posterior_mean",
    "predictive_log_prob",
    "pseudo_gibbs",
    "resample",
    "restored_draws",
    "sample_imputations",
    "weighted_draws",
]
