"""What comes out of a trained run: arrays with named fields."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

__all__ = [
    "Bound",
    "Codes",
    "Images",
    "Likelihood",
    "Pixels",
    "Restored",
    "Sampled",
]


Array = np.ndarray | jax.Array
"""In memory, of numpy, where it comes out of a `TrainedRun`."""


class Images(NamedTuple):
    """Images of a split, as the model sees them.

    Attributes:
      xs: `[n, H, W]` or `[n, H, W, C]` float32 in [0, 1]; binary where the run's are.
      labels: `[n]` int32, or None where the data have none.
    """

    xs: Array
    labels: Array | None


class Codes(NamedTuple):
    """q(z|x) of n datapoints. z has no unit: a standard normal prior has deviation 1.

    Attributes:
      mean: `[n, J]` E_q[z].
      std: `[n, J]` the standard deviation of q; where it has no closed form (Weibull,
        Kumaraswamy) that of 1000 draws.
      draws: `[n, S, J]` of q; S is 0 unless draws were asked for.
    """

    mean: Array
    std: Array
    draws: Array


class Pixels(NamedTuple):
    """p(x|z) of n codes, pixels from 0 (black) to 1.

    Attributes:
      mean: `[n, H, W]` or `[n, H, W, C]` E[x|z]; of binary pixels P(x = 1|z).
      std: like `mean`, the standard deviation of x given z.
    """

    mean: Array
    std: Array


class Sampled(NamedTuple):
    """Draws of the model.

    Attributes:
      zs: `[n, J]` of the prior.
      mean: `[n, H, W]` or `[n, H, W, C]` E[x|z].
      xs: like `mean`, draws of x given z.
    """

    zs: Array
    mean: Array
    xs: Array


class Bound(NamedTuple):
    """The variational bound of n datapoints, in nats, with one noise draw each.

    Attributes:
      bound: `[n]` an estimate of L(x) ≤ log p(x).
      reconstruction: `[n]` its part E_q[log p(x|z)].
      kl: `[n]` its part KL(q(z|x) ‖ p(z)).
    """

    bound: Array
    reconstruction: Array
    kl: Array


class Likelihood(NamedTuple):
    """log p(x) of n datapoints by importance sampling.

    Attributes:
      log_likelihood: `[n]` in nats; below log p(x) in expectation.
      std_error: `[n]` its standard error, in nats.
      ess: `[n]` the effective sample size, from 1 to K.
      pareto_k: `[n]` k-hat of the weights: above 0.7 the number is not to be trusted.
    """

    log_likelihood: Array
    std_error: Array
    ess: Array
    pareto_k: Array


class Restored(NamedTuple):
    """p(x|y) of n images of which y is seen.

    Attributes:
      mean: `[n, H, W]` or `[n, H, W, C]` E[x|y]; of binary pixels P(x = 1|y).
      draws: `[n, S, H, W]` or `[n, S, H, W, C]` of p(x|y).
      diagnostics: `{name: [n]}` of the chains or the weights: those there are of
        "acceptance", "ess", "r_hat", "pareto_k".
    """

    mean: Array
    draws: Array
    diagnostics: Mapping[str, Array]
