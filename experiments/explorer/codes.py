"""Where the page goes in the latent space: the codes' axes, scores, and test images.

The page moves in *normal scores* u, z_j = F^-1(Phi(u_j)) with F of the prior: N(0, I)
whatever the family, and z itself where the prior is the standard normal. So there is
one plane, one set of sliders and one sampler for every family.
"""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray
from scipy import special

from experiments.data import Dataset
from experiments.evaluation.points import evenly_spaced
from experiments.program.posteriors import prior_shape
from experiments.reports.latent import principal_axes

__all__ = ["SCORES", "Codes", "choose_examples", "describe_codes", "prior_quantiles"]

SCORES = np.linspace(-5, 5, 1001)
"""The normal scores whose z is tabulated: P(|u| > 5) is 6e-7."""

_MOST_AXES = 10
_MOST_CODES = 2000
_NUM_EXAMPLES = 100
_TINY = 1e-6


class Codes(NamedTuple):
    """The test images' codes, in normal scores.

    Attributes:
      axes: `[K, J]` the principal axes, of unit length.
      centre: `[J]` the mean code.
      spread: `[K]` the codes' standard deviation along each.
      shares: `[K]` of the variance of the codes; empty where there are no codes.
      plane: `[M, 2]` some of them on the map: their scores where J is 2, else in units
        of `spread` along the first two axes.
      chosen: `[M]` the test images that those are of.
    """

    axes: NDArray[np.float64]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    shares: NDArray[np.float64]
    plane: NDArray[np.float64]
    chosen: NDArray[np.intp]


def prior_quantiles(config: ConfigDict) -> NDArray[np.float64] | None:
    """z of each of `SCORES`, in one dimension of the prior; None of a standard normal.

    Args:
      config: validated; not of a Dirichlet, whose dimensions are not independent.
    """
    u = SCORES
    # Both tails as they are: 1 - p would be 1 in the upper one.
    p, q = special.ndtr(u), special.ndtr(-u)
    log_p, log_q = special.log_ndtr(u), special.log_ndtr(-u)
    shape = prior_shape(config)
    lower = u < 0
    match config.posterior:
        case "normal":
            return None
        case "laplace":
            return np.where(lower, 1, -1) * (np.log(2) + np.minimum(log_p, log_q))
        case "logistic":
            return log_p - log_q
        case "student_t":
            return np.sign(u) * np.abs(special.stdtrit(shape, np.minimum(p, q)))
        case "gamma" | "weibull":
            low, high = special.gammaincinv(shape, p), special.gammainccinv(shape, q)
            return np.where(lower, low, high) / shape
        case "log_normal":
            return np.exp(u)
        case "beta":
            low, high = (special.betaincinv(shape, shape, tail) for tail in (p, q))
            return np.where(lower, low, 1 - high)
        case "kumaraswamy":
            return np.exp(np.log(-np.expm1(log_q / shape)) / shape)
        case other:
            raise ValueError(f"the prior of {other} has no independent dimensions")


def describe_codes(
    means: NDArray[np.float32] | None, config: ConfigDict, num_axes: int = _MOST_AXES
) -> Codes:
    """The axes to slide along, and the codes to show.

    Args:
      means: `[N, J]` posterior means of the test set; None where there is no encoder,
        and the axes are then those of z, in units of the prior.
      config: validated.
      num_axes: at most so many.
    """
    dim = config.latent_dim
    count = min(num_axes, dim)
    if means is None:
        ones, nothing = np.ones(count), np.zeros((0, 2))
        axes, centre = np.eye(dim)[:count], np.zeros(dim)
        return Codes(axes, centre, ones, np.zeros(0), nothing, np.zeros(0, np.intp))
    scores = means.astype(np.float64)
    quantiles = prior_quantiles(config)
    if quantiles is not None:
        scores = np.interp(scores, quantiles, SCORES)
    axes, variances = principal_axes(scores)
    axes, centre = axes[:count], scores.mean(axis=0)
    # Codes that do not vary, of an untrained run, have no unit of their own.
    spread = np.maximum(np.sqrt(variances[:count]), _TINY)
    chosen = evenly_spaced(len(scores), _MOST_CODES)
    plane = scores[chosen]
    if dim != 2:
        plane = (plane - centre) @ axes[:2].T / spread[:2]
    shares = variances[:count] / max(variances.sum(), _TINY)
    return Codes(axes, centre, spread, shares, plane, chosen)


def choose_examples(dataset: Dataset, most: int = _NUM_EXAMPLES) -> NDArray[np.intp]:
    """Test images for the page: as many of each class, class by class.

    Args:
      dataset: of the run.
      most: images.
    """
    labels = dataset.test.labels
    if labels is None:
        return evenly_spaced(len(dataset.test.images), most)
    names = np.unique(labels)
    each = max(1, most // len(names))
    return np.concatenate([np.flatnonzero(labels == name)[:each] for name in names])
