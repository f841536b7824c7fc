"""What z may be, by an encoder and several guesses of x."""

from typing import Any

import jax
import jax.numpy as jnp

from aevb.calls import call_encode, prior_or_normal
from aevb.records import record
from aevb.types import Encode, Posterior, PyTree

__all__ = ["EncoderMixture", "encoder_mixture"]


@record
class EncoderMixture:
    """What `encoder_mixture` returns, a distribution over z.

    Attributes:
      components: q(z|x_c), its leaves with a leading axis `[C]`.
      prior: p(z), or None for the standard normal.
      prior_share: `[]` ε.
    """

    components: Any
    prior: Any
    prior_share: jax.Array | float

    def sample(self, key: jax.Array) -> PyTree:
        """Draws z; not reparameterised in the choice of the component. `[J]`"""
        which_key, prior_key, p_key, q_key = jax.random.split(key, 4)
        num_components = len(jax.tree.leaves(self.components)[0])
        which = jax.random.randint(which_key, (), 0, num_components)
        z = jax.tree.map(lambda leaf: leaf[which], self.components).sample(q_key)
        of_prior: Any = prior_or_normal(self.prior, z)
        from_prior = jax.random.bernoulli(prior_key, self.prior_share)
        return jax.tree.map(
            lambda a, b: jnp.where(from_prior, a, b), of_prior.sample(p_key), z
        )

    def log_prob(self, z: PyTree) -> jax.Array:
        """log q̃(z) in nats. `[]`"""
        log_qs = jax.vmap(lambda q: q.log_prob(z))(self.components)
        log_q = jax.nn.logsumexp(log_qs) - jnp.log(len(log_qs))
        log_p = prior_or_normal(self.prior, z).log_prob(z)
        share = self.prior_share
        return jnp.logaddexp(jnp.log1p(-share) + log_q, jnp.log(share) + log_p)


def encoder_mixture(
    encode: Encode,
    xs: PyTree,
    *,
    prior: Posterior | None = None,
    prior_share: float = 0.05,
) -> EncoderMixture:
    """A proposal for p(z|y): the encoder of several filled-in x, and a little prior.

    q̃(z) = (1 − ε) (1/C) Σ_c q(z|x_c) + ε p(z)

    One x with a mean filled in is like no x that the encoder has seen; draws of x, such
    as `aevb.sample_imputations(...).xs[:, -1]`, are. The prior reaches what none of
    them proposes, and keeps the weights p(y, z) / q̃(z) below p(y|z) / ε.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`.
      xs: `[C, D]`, or a pytree of such.
      prior: p(z), with `sample(key)`; None is the standard normal of z's shape.
      prior_share: ε in [0, 1).

    Returns:
      `EncoderMixture`, with `sample` and `log_prob`.

    Raises:
      ValueError: `prior_share` is not within [0, 1).

    >>> from aevb import DiagNormal
    >>> q = encoder_mixture(lambda x: DiagNormal(x, jnp.zeros(1)),
    ...                     jnp.array([[-1.0], [1.0]]))
    >>> print(f"{q.log_prob(jnp.zeros(1)):.2f}")
    -1.39
    """
    if not 0 <= prior_share < 1:
        raise ValueError(
            f"prior_share is {prior_share}, expected at least 0 and below 1"
        )
    components = jax.vmap(lambda x: call_encode(encode, x))(xs)
    return EncoderMixture(components, prior, prior_share)
