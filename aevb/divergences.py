"""KL divergences in closed form, one function a pair of families."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import digamma, lgamma
from jax.scipy.special import betaln, ndtr, polygamma

from aevb.distributions import (
    Bernoulli,
    DiagNormal,
    MultivariateNormal,
    Product,
    check_shape,
    normal_shape,
    softplus,
)
from aevb.reparameterizations import (
    Beta,
    ChiSquared,
    Dirichlet,
    Erlang,
    Exponential,
    Gamma,
    Gumbel,
    Laplace,
    LogNormal,
    LogUniform,
    Pareto,
    Rayleigh,
    Uniform,
    Weibull,
)
from aevb.reparameterizations.numerics import log_ratio

__all__ = ["kl_divergence"]

_EULER = 0.57721566490153286
_LOG_2PI = math.log(2 * math.pi)


def kl_divergence(q: object, p: object) -> jax.Array:
    """KL(q ‖ p) in closed form, in nats; zero when q = p.

    Two `DiagNormal`s (Appendix B, for any p):
    Σⱼ log(σ_p/σ_q) + (σ_q² + (μ_q − μ_p)²) / (2σ_p²) − ½; two `LogNormal`s as well.
    Two `Bernoulli`s: Σ_d y_q (l_q − l_p) + softplus(l_p) − softplus(l_q).
    A `MultivariateNormal` q, with covariance Σ, and a `DiagNormal` p:
    ½ Σⱼ [log σ_p² + (Σⱼⱼ + (μ_q − μ_p)²) / σ_p² − 1] − ½ log det Σ.
    Between and within the gammas (`Gamma`, `Exponential`, `ChiSquared`, `Erlang`), the
    Weibulls (`Weibull`, `Exponential`, `Rayleigh`) and `LogNormal`, but for a Weibull q
    and a log-normal p. Within `Beta`, `Dirichlet`, `Laplace`, `Gumbel`, `Pareto`,
    `Uniform`, `LogUniform`; infinite where p's support does not hold q's. `Laplace` and
    `Uniform` q to a `DiagNormal` p, and a `DiagNormal` q to `Laplace`.
    Two `Product`s of the same structure: Σ_k KL(q_k ‖ p_k).

    Args:
      q: the distribution that the expectation is under.
      p: the other one.

    Returns:
      `[]` the divergence.

    Raises:
      ValueError: q and p are over values of different shapes or structures.
      TypeError: there is no closed form here for this pair of types. Pass one as
        `kl=` (numpyro's `kl_divergence`, say), or use `elbo_generic`, which needs none.

    >>> standard = DiagNormal(jnp.zeros(2), jnp.zeros(2))
    >>> print(kl_divergence(DiagNormal(jnp.ones(2), jnp.zeros(2)), standard))
    1.0
    """
    for of_q, of_p, divergence in _CLOSED_FORMS:
        if isinstance(q, of_q) and isinstance(p, of_p):
            return jnp.sum(divergence(q, p))
    raise TypeError(
        f"no closed-form KL divergence from {type(q).__name__} to {type(p).__name__}: "
        "pass one as kl=..., or use aevb.elbo_generic (eq. 6), which needs none"
    )


def _normals(q: DiagNormal, p: DiagNormal) -> jax.Array:
    terms = jax.tree.map(_kl_normal, q.loc, q.log_scale, p.loc, p.log_scale)
    return jax.tree.reduce(jnp.add, terms)


def _kl_normal(
    loc_q: jax.Array, log_scale_q: jax.Array, loc_p: jax.Array, log_scale_p: jax.Array
) -> jax.Array:
    shape_q = normal_shape(loc_q, log_scale_q)
    check_shape("p", normal_shape(loc_p, log_scale_p), shape_q)
    log_scale = jnp.broadcast_to(log_scale_q - log_scale_p, shape_q)
    distance = (loc_q - loc_p) * jnp.exp(-log_scale_p)
    return 0.5 * jnp.sum(jnp.exp(2 * log_scale) + distance**2 - 1 - 2 * log_scale)


def _full_to_diagonal(q: MultivariateNormal, p: DiagNormal) -> jax.Array:
    row_scale = 0.5 * jnp.log(jnp.sum(q.scale_tril**2, axis=-1))
    marginals = _kl_normal(q.loc, row_scale, p.loc, p.log_scale)
    log_det = jnp.sum(jnp.log(jnp.diagonal(q.scale_tril)))
    return marginals + jnp.sum(row_scale) - log_det


def _bernoullis(q: Bernoulli, p: Bernoulli) -> jax.Array:
    check_shape("p", jnp.shape(p.logits), jnp.shape(q.logits))
    change = q.mean * (q.logits - p.logits)
    return change + softplus(p.logits) - softplus(q.logits)


def _products(q: Product, p: Product) -> jax.Array:
    (qs, structure), (ps, expected) = q.flatten(), p.flatten()
    if structure != expected:
        raise ValueError(
            f"q is a product over {structure}, p one over {expected}: expected the "
            "same parts in both"
        )
    return jax.tree.reduce(jnp.add, list(map(kl_divergence, qs, ps)))


def _log_normals(q: LogNormal, p: LogNormal) -> jax.Array:
    return _normals(q.base, p.base)


def _same_shape(form: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A divergence number by number, of two families of one shape."""

    def checked(q: Any, p: Any) -> jax.Array:
        check_shape("p", p.shape, q.shape)
        return jnp.broadcast_to(form(q, p), q.shape)

    return checked


def _gamma(d: Any) -> tuple[Any, Any]:
    """(concentration, rate) of what is a gamma distribution."""
    if isinstance(d, Exponential):
        return jnp.ones_like(jnp.asarray(d.rate)), d.rate
    if isinstance(d, ChiSquared):
        return d.df / 2, 0.5
    if isinstance(d, Erlang):
        return jnp.full_like(jnp.asarray(d.rate), d.count), d.rate
    return d.concentration, d.rate


def _weibull(d: Any) -> tuple[Any, Any]:
    """(concentration, scale) of what is a Weibull distribution."""
    if isinstance(d, Exponential):
        return jnp.ones_like(jnp.asarray(d.rate)), 1 / d.rate
    if isinstance(d, Rayleigh):
        return jnp.full_like(jnp.asarray(d.scale), 2), math.sqrt(2) * d.scale
    return d.concentration, d.scale


@_same_shape
def _gammas(q: Any, p: Any) -> jax.Array:
    (a_q, b_q), (a_p, b_p) = _gamma(q), _gamma(p)
    log_rate = jnp.log(b_q / b_p)
    return (
        (a_q - a_p) * digamma(a_q)
        - lgamma(a_q)
        + lgamma(a_p)
        + a_p * log_rate
        + a_q * jnp.expm1(-log_rate)
    )


@_same_shape
def _weibull_to_gamma(q: Any, p: Any) -> jax.Array:
    (k, scale), (a, b) = _weibull(q), _gamma(p)
    # E log(z/s) = −γ/k, E (z/s)ᵏ = 1, E z = s Γ(1 + 1/k).
    log_s = jnp.log(scale)
    entropy = _EULER * (1 - 1 / k) + log_s - jnp.log(k) + 1
    log_z = log_s - _EULER / k
    z = scale * jnp.exp(lgamma(1 + 1 / k))
    return -entropy - (a * jnp.log(b) - lgamma(a) + (a - 1) * log_z - b * z)


@_same_shape
def _log_normal_to_gamma(q: LogNormal, p: Any) -> jax.Array:
    a, b = _gamma(p)
    entropy = q.loc + q.log_scale + 0.5 * (_LOG_2PI + 1)
    expected = a * jnp.log(b) - lgamma(a) + (a - 1) * q.loc - b * q.mean
    return -entropy - expected


@_same_shape
def _log_normal_to_weibull(q: LogNormal, p: Any) -> jax.Array:
    k, scale = _weibull(p)
    entropy = q.loc + q.log_scale + 0.5 * (_LOG_2PI + 1)
    log_s, variance = jnp.log(scale), jnp.exp(2 * q.log_scale)
    power = jnp.exp(k * (q.loc - log_s) + k**2 * variance / 2)
    return -entropy - (jnp.log(k) - k * log_s + (k - 1) * q.loc - power)


def _gamma_entropy(a: Any, b: Any) -> jax.Array:
    return a - jnp.log(b) + lgamma(a) + (1 - a) * digamma(a)


@_same_shape
def _gamma_to_log_normal(q: Any, p: LogNormal) -> jax.Array:
    a, b = _gamma(q)
    log_z = digamma(a) - jnp.log(b)
    square = (polygamma(1, a) + (log_z - p.loc) ** 2) * jnp.exp(-2 * p.log_scale)
    expected = -log_z - p.log_scale - 0.5 * (_LOG_2PI + square)
    return -_gamma_entropy(a, b) - expected


@_same_shape
def _gamma_to_weibull(q: Any, p: Any) -> jax.Array:
    (a, b), (k, scale) = _gamma(q), _weibull(p)
    log_s, log_b = jnp.log(scale), jnp.log(b)
    log_z = digamma(a) - log_b
    power = jnp.exp(lgamma(a + k) - lgamma(a) - k * (log_b + log_s))
    expected = jnp.log(k) - k * log_s + (k - 1) * log_z - power
    return -_gamma_entropy(a, b) - expected


@_same_shape
def _weibulls(q: Any, p: Any) -> jax.Array:
    (k_q, s_q), (k_p, s_p) = _weibull(q), _weibull(p)
    ratio, log_s = k_p / k_q, jnp.log(s_q / s_p)
    # log p(z) − log k_p + log z = k_p log(z/s_p) − (z/s_p)^k_p, and E log z cancels.
    power = jnp.exp(k_p * log_s + lgamma(1 + ratio))
    return (ratio - 1) * _EULER - jnp.log(ratio) - k_p * log_s + power - 1


@_same_shape
def _betas(q: Beta, p: Beta) -> jax.Array:
    a, b = q.concentration1, q.concentration0
    more_a, more_b = a - p.concentration1, b - p.concentration0
    return (
        betaln(p.concentration1, p.concentration0)
        - betaln(a, b)
        + more_a * digamma(a)
        + more_b * digamma(b)
        - (more_a + more_b) * digamma(a + b)
    )


def _dirichlets(q: Dirichlet, p: Dirichlet) -> jax.Array:
    a, b = q.concentration, p.concentration
    check_shape("p", jnp.shape(b), jnp.shape(a))
    log_z = digamma(a) - digamma(jnp.sum(a))
    normalisers = lgamma(jnp.sum(a)) - lgamma(jnp.sum(b))
    return normalisers + jnp.sum(lgamma(b) - lgamma(a) + (a - b) * log_z)


@_same_shape
def _laplaces(q: Laplace, p: Laplace) -> jax.Array:
    distance = jnp.abs(q.loc - p.loc)
    spread = (q.scale * jnp.exp(-distance / q.scale) + distance) / p.scale
    return jnp.log(p.scale / q.scale) + spread - 1


@_same_shape
def _gumbels(q: Gumbel, p: Gumbel) -> jax.Array:
    ratio, distance = q.scale / p.scale, (q.loc - p.loc) / p.scale
    tail = jnp.exp(lgamma(1 + ratio) - distance)
    return -jnp.log(ratio) + _EULER * (ratio - 1) + distance + tail - 1


@_same_shape
def _paretos(q: Pareto, p: Pareto) -> jax.Array:
    ratio = p.concentration / q.concentration
    inside = p.concentration * jnp.log(q.scale / p.scale) - jnp.log(ratio) + ratio - 1
    return jnp.where(jnp.asarray(q.scale) >= p.scale, inside, jnp.inf)


def _is_inside(q: Any, p: Any) -> jax.Array:
    return (jnp.asarray(q.low) >= p.low) & (jnp.asarray(q.high) <= p.high)


@_same_shape
def _uniforms(q: Uniform, p: Uniform) -> jax.Array:
    inside = jnp.log((p.high - p.low) / (q.high - q.low))
    return jnp.where(_is_inside(q, p), inside, jnp.inf)


@_same_shape
def _log_uniforms(q: LogUniform, p: LogUniform) -> jax.Array:
    inside = jnp.log(log_ratio(p.high, p.low) / log_ratio(q.high, q.low))
    return jnp.where(_is_inside(q, p), inside, jnp.inf)


def _of_normal(form: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A divergence number by number, of which one is a `DiagNormal` over an array."""

    def checked(q: Any, p: Any) -> jax.Array:
        q_shape, p_shape = (
            normal_shape(d.loc, d.log_scale) if isinstance(d, DiagNormal) else d.shape
            for d in (q, p)
        )
        check_shape("p", p_shape, q_shape)
        return jnp.broadcast_to(form(q, p), q_shape)

    return checked


@_of_normal
def _laplace_to_normal(q: Laplace, p: DiagNormal) -> jax.Array:
    square = 2 * q.scale**2 + (q.loc - p.loc) ** 2
    expected = -p.log_scale - 0.5 * (_LOG_2PI + square * jnp.exp(-2 * p.log_scale))
    return -jnp.log(2 * q.scale) - 1 - expected


@_of_normal
def _normal_to_laplace(q: DiagNormal, p: Laplace) -> jax.Array:
    # E |z − loc_p|, the mean of the folded normal.
    scale = jnp.exp(q.log_scale)
    e = (q.loc - p.loc) / scale
    folded = scale * (2 * jnp.exp(-0.5 * (e**2 + _LOG_2PI)) + e * (2 * ndtr(e) - 1))
    entropy = q.log_scale + 0.5 * (_LOG_2PI + 1)
    return -entropy + jnp.log(2 * p.scale) + folded / p.scale


@_of_normal
def _uniform_to_normal(q: Uniform, p: DiagNormal) -> jax.Array:
    width = q.high - q.low
    square = width**2 / 12 + (q.mean - p.loc) ** 2
    expected = -p.log_scale - 0.5 * (_LOG_2PI + square * jnp.exp(-2 * p.log_scale))
    return -jnp.log(width) - expected


_GAMMAS = (Gamma, Exponential, ChiSquared, Erlang)
_WEIBULLS = (Weibull, Exponential, Rayleigh)

# The first row that fits: an exponential distribution is a gamma and a Weibull one.
_CLOSED_FORMS: tuple[tuple[Any, Any, Callable[..., jax.Array]], ...] = (
    (DiagNormal, DiagNormal, _normals),
    (MultivariateNormal, DiagNormal, _full_to_diagonal),
    (Bernoulli, Bernoulli, _bernoullis),
    (Product, Product, _products),
    (_GAMMAS, _GAMMAS, _gammas),
    (_WEIBULLS, _GAMMAS, _weibull_to_gamma),
    (_GAMMAS, _WEIBULLS, _gamma_to_weibull),
    (_WEIBULLS, _WEIBULLS, _weibulls),
    (LogNormal, LogNormal, _log_normals),
    (LogNormal, _GAMMAS, _log_normal_to_gamma),
    (LogNormal, _WEIBULLS, _log_normal_to_weibull),
    (_GAMMAS, LogNormal, _gamma_to_log_normal),
    (Beta, Beta, _betas),
    (Dirichlet, Dirichlet, _dirichlets),
    (Laplace, Laplace, _laplaces),
    (Laplace, DiagNormal, _laplace_to_normal),
    (DiagNormal, Laplace, _normal_to_laplace),
    (Gumbel, Gumbel, _gumbels),
    (Pareto, Pareto, _paretos),
    (Uniform, Uniform, _uniforms),
    (Uniform, DiagNormal, _uniform_to_normal),
    (LogUniform, LogUniform, _log_uniforms),
)
