"""Channels of noise in each dimension: flipped pixels, Gaussian noise."""

import jax
import jax.numpy as jnp

from aevb.distributions import Bernoulli, DiagNormal
from aevb.observations.channel import check_all, check_broadcasts, of_kind
from aevb.records import record
from aevb.types import Likelihood

__all__ = ["Flipped", "Noisy", "flipped", "noisy"]


def flipped(rate: jax.Array | float) -> "Flipped":
    """The channel in which each binary pixel is flipped with some probability.

    P(y = 1) = (1 − r) P(x = 1) + r P(x = 0): salt and pepper.

    Args:
      rate: r in (0, 1), one for all or `[D]`.

    Returns:
      `Flipped`, for `Bernoulli` likelihoods.

    Raises:
      ValueError: a rate is not between 0 and 1 (seen where it is not traced); on the
        call, there are not as many as pixels.
      TypeError: on the call, the likelihood is not a `Bernoulli`.

    >>> p = flipped(0.1)(Bernoulli(jnp.array([40.0, -40.0])))
    >>> print(p.mean)
    [0.9 0.1]
    """
    check_all("rate", rate, lambda r: (r > 0) & (r < 1), "strictly between 0 and 1")
    return Flipped(rate)


@record
class Flipped:
    """What `flipped` returns.

    Attributes:
      rate: `[]` or `[D]` of each pixel.
    """

    rate: jax.Array | float

    def __call__(self, likelihood: Likelihood) -> Bernoulli:
        """p(y|z): between the rate and one minus the rate."""
        logits = of_kind(Bernoulli, likelihood, "flipped").logits
        check_broadcasts("rate", self.rate, jnp.shape(logits))
        # Odd in l, and e^-|l| alone is made, which stays finite.
        size = jnp.where(logits >= 0, logits, -logits)
        flip, stay = jnp.log(self.rate), jnp.log1p(-jnp.asarray(self.rate))
        found = jnp.logaddexp(stay, flip - size) - jnp.logaddexp(flip, stay - size)
        return Bernoulli(jnp.where(logits >= 0, found, -found))

    def given(self, x: jax.Array) -> Bernoulli:
        """p(y|x)."""
        return Bernoulli((2 * x - 1) * self._log_odds)

    def restore(self, likelihood: Likelihood, y: jax.Array) -> Bernoulli:
        """p(x|z, y): the log odds of p(x|z), and those of y."""
        logits = of_kind(Bernoulli, likelihood, "flipped").logits
        check_broadcasts("rate", self.rate, jnp.shape(logits))
        check_broadcasts("y", y, jnp.shape(logits))
        return Bernoulli(logits + (2 * y - 1) * self._log_odds)

    @property
    def _log_odds(self) -> jax.Array:
        """Of a pixel that stays as it is."""
        return jnp.log1p(-jnp.asarray(self.rate)) - jnp.log(self.rate)


def noisy(scale: jax.Array | float) -> "Noisy":
    """The channel that adds Gaussian noise: y = x + scale · ε, ε ~ N(0, I).

    Args:
      scale: the noise's standard deviation, one for all or `[D]`, above 0.

    Returns:
      `Noisy`, for `DiagNormal` likelihoods.

    Raises:
      ValueError: a scale is not positive (seen where it is not traced); on the call,
        there are not as many as dimensions.
      TypeError: on the call, the likelihood is not a `DiagNormal`.

    >>> p = noisy(3.0)(DiagNormal(jnp.zeros(1), jnp.log(jnp.full(1, 4.0))))
    >>> print(jnp.exp(p.log_scale).round(4))
    [5.]
    """
    check_all("scale", scale, lambda s: s > 0, "above 0")
    return Noisy(scale)


@record
class Noisy:
    """What `noisy` returns.

    Attributes:
      scale: `[]` or `[D]` the noise's standard deviation.
    """

    scale: jax.Array | float

    def __call__(self, likelihood: Likelihood) -> DiagNormal:
        """p(y|z): the variances are added."""
        p = of_kind(DiagNormal, likelihood, "noisy")
        check_broadcasts("scale", self.scale, jnp.shape(p.loc))
        log_scale = jnp.broadcast_to(p.log_scale, jnp.shape(p.loc))
        variance = jnp.logaddexp(2 * log_scale, 2 * jnp.log(self.scale))
        return DiagNormal(p.loc, variance / 2)

    def given(self, x: jax.Array) -> DiagNormal:
        """p(y|x) = N(x, scale²)."""
        return DiagNormal(x, jnp.log(self.scale))

    def restore(self, likelihood: Likelihood, y: jax.Array) -> DiagNormal:
        """p(x|z, y): the precisions are added."""
        p = of_kind(DiagNormal, likelihood, "noisy")
        check_broadcasts("scale", self.scale, jnp.shape(p.loc))
        check_broadcasts("y", y, jnp.shape(p.loc))
        log_scale = jnp.broadcast_to(p.log_scale, jnp.shape(p.loc))
        gain = jax.nn.sigmoid(2 * (log_scale - jnp.log(self.scale)))
        precision = jnp.logaddexp(-2 * log_scale, -2 * jnp.log(self.scale))
        return DiagNormal(p.loc + gain * (y - p.loc), -precision / 2)
