"""Positive, bounded and simplex latents on the real line, for what walks through it."""

from typing import Any, NamedTuple

import jax

from aevb.distributions import Bernoulli, DiagNormal, MultivariateNormal
from aevb.reparameterizations.families import Transformed
from aevb.reparameterizations.transforms import Identity, Inverse, Transform
from aevb.types import Decode, Encode, Likelihood, Posterior

__all__ = ["Unconstrained", "support_of", "unconstrained"]


class Unconstrained(NamedTuple):
    """A model whose latent is y = T⁻¹(z), a real vector without bounds.

    Attributes:
      encode: `encode(x) -> q(y|x)`.
      decode: `decode(y) -> p(x|y)`.
      prior: p(y).
      transform: T: `transform.forward(y)` is z.
    """

    encode: Encode
    decode: Decode
    prior: Posterior
    transform: Transform


def support_of(distribution: Any) -> Transform:
    """The real line onto the support of a distribution.

    Args:
      distribution: of this package, or any with a property `support` that is a
        `Transform`.

    Returns:
      `Transform`; the identity for a Gaussian.

    Raises:
      TypeError: its support is not known.

    >>> from aevb import DiagNormal
    >>> support_of(DiagNormal(0.0, 0.0))
    Identity()
    """
    if isinstance(distribution, DiagNormal | MultivariateNormal):
        return Identity()
    support: Any = getattr(distribution, "support", None)
    if isinstance(distribution, Bernoulli) or not hasattr(support, "log_det"):
        raise TypeError(
            f"{type(distribution).__name__} has no support that is known here: pass "
            "transform=..., a Transform of the real line onto it, such as aevb.Exp()"
        )
    return support


def unconstrained(
    encode: Encode,
    decode: Decode,
    prior: Posterior,
    *,
    transform: Transform | None = None,
) -> Unconstrained:
    """The same model in y = T⁻¹(z): what HMC and annealed importance sampling need.

    p(x) is that of the model, and the densities of y have the Jacobian of T. The log
    weights log p(x, z) − log q(z|x) are the same, draw for draw, up to rounding.

    Args:
      encode: x `[D]` -> q(z|x), of the prior's support.
      decode: z `[J]` -> p(x|z).
      prior: p(z).
      transform: T; None is the support of the prior.

    Returns:
      `Unconstrained`, to be passed on as `encode`, `decode` and `prior`.

    Raises:
      TypeError: the support of the prior is not known.

    >>> import jax.numpy as jnp
    >>> from aevb import DiagNormal, Gamma
    >>> prior = Gamma(jnp.ones(1), jnp.ones(1))
    >>> model = unconstrained(lambda x: prior, lambda z: DiagNormal(z, 0 * z), prior)
    >>> y = jnp.zeros(1)
    >>> print(model.decode(y).mean, f"{model.prior.log_prob(y):.4f}")
    [1.] -1.0000
    """
    to_support = support_of(prior) if transform is None else transform

    def pull(distribution: Any) -> Any:
        if isinstance(to_support, Identity):
            return distribution
        # A family whose draws are T of real ones has those; going there and back would
        # lose what is near an end.
        is_own = _same(getattr(distribution, "transform", None), to_support)
        return (
            distribution.base
            if is_own
            else Transformed(distribution, Inverse(to_support))
        )

    def decode_real(y: jax.Array) -> Likelihood:
        return decode(to_support.forward(y))

    return Unconstrained(
        lambda x: pull(encode(x)), decode_real, pull(prior), to_support
    )


def _same(one: Any, other: Any) -> bool:
    """Whether two transforms are one, of no parameters."""
    return one == other and not jax.tree.leaves((one, other))
