"""Every family beside the same distribution of scipy.stats, in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.stats as st
from scipy.special import (
    betainc,
    betaincinv,
    betaln,
    expit,
    gammainc,
    gammainccinv,
    gammaincinv,
    gammaln,
    logit,
)

from aevb import reparameterizations as rep

INF = np.inf


class Kumaraswamy(NamedTuple):
    """F(z) = 1 − (1 − zᵃ)ᵇ: scipy has none."""

    a: np.ndarray
    b: np.ndarray

    def logpdf(self, z):
        a, b = self
        with np.errstate(all="ignore"):
            log = np.log(a * b) + (a - 1) * np.log(z) + (b - 1) * np.log1p(-(z**a))
        return np.where((z > 0) & (z < 1), log, -INF)

    def cdf(self, z):
        return -np.expm1(self.b * np.log1p(-(z**self.a)))

    def ppf(self, p):
        return (-np.expm1(np.log1p(-p) / self.b)) ** (1 / self.a)

    def isf(self, q):
        return (-np.expm1(np.log(q) / self.b)) ** (1 / self.a)

    def mean(self):
        return self.b * np.exp(betaln(1 + 1 / self.a, self.b))


class LogGamma(NamedTuple):
    """Of log z: where z itself underflows, F(y) = e^{a y} / Γ(a + 1)."""

    a: np.ndarray
    rate: np.ndarray

    def logpdf(self, y):
        y = y + np.log(self.rate)
        return self.a * y - np.exp(y) - gammaln(self.a)

    def cdf(self, y):
        y = y + np.log(self.rate)
        far = np.exp(np.minimum(self.a * y - gammaln(self.a + 1), 0))
        return np.where(y < -40, far, gammainc(self.a, np.exp(np.maximum(y, -50))))

    def ppf(self, p):
        far = (np.log(p) + gammaln(self.a + 1)) / self.a
        near = np.log(np.maximum(gammaincinv(self.a, p), 1e-300))
        return np.where(far < -40, far, near) - np.log(self.rate)

    def isf(self, q):
        far = (np.log1p(-q) + gammaln(self.a + 1)) / self.a
        near = np.log(np.maximum(gammainccinv(self.a, q), 1e-300))
        return np.where(far < -40, far, near) - np.log(self.rate)

    def mean(self):
        return st.loggamma(self.a, loc=-np.log(self.rate)).mean()


class LogBetaOdds(NamedTuple):
    """Of log z / (1 − z): where z itself underflows, F(y) = e^{a y} / (a B(a, b))."""

    a: np.ndarray
    b: np.ndarray

    def logpdf(self, y):
        a, b = self
        return -a * np.logaddexp(0, -y) - b * np.logaddexp(0, y) - betaln(a, b)

    def cdf(self, y):
        a, b = self
        low = np.exp(np.minimum(a * y - np.log(a) - betaln(a, b), 0))
        high = np.exp(np.minimum(-b * y - np.log(b) - betaln(a, b), 0))
        near = np.where(y < 0, betainc(a, b, expit(y)), 1 - betainc(b, a, expit(-y)))
        return np.where(y < -40, low, np.where(y > 40, 1 - high, near))

    def ppf(self, p):
        a, b = self
        low = (np.log(p) + np.log(a) + betaln(a, b)) / a
        high = -(np.log1p(-p) + np.log(b) + betaln(a, b)) / b
        with np.errstate(divide="ignore"):
            z, rest = betaincinv(a, b, p), betaincinv(b, a, 1 - p)
            near = np.where(z < 0.5, logit(z), -logit(rest))
        return np.where(low < -40, low, np.where(high > 40, high, near))

    def isf(self, q):
        return -LogBetaOdds(self.b, self.a).ppf(q)


class Case(NamedTuple):
    """A family and what is known of it.

    Attributes:
      make: the family of its parameters, in their order.
      truth: the same, of scipy: `logpdf`, `cdf`, `ppf`, `isf`, `mean`.
      settings: parameters: ordinary ones, and shapes from 0.05 to 1e4.
      extremes: parameters at which draws in float32 have to stay inside.
    """

    make: Callable[..., Any]
    truth: Callable[..., Any]
    settings: tuple[tuple[float, ...], ...]
    extremes: tuple[tuple[float, ...], ...]

    def parameters(self, dtype: Any = np.float64, *, extremes: bool = False):
        """One array `[J]` a parameter, exact in float32."""
        rows = self.settings + (self.extremes if extremes else ())
        return [np.float32(column).astype(dtype) for column in zip(*rows, strict=True)]

    def family(self, dtype: Any = np.float64):
        """The family of J dimensions, one a setting."""
        return self.make(*map(jnp.asarray, self.parameters(dtype)))

    def frozen(self):
        """The truth, J at once."""
        return self.truth(*self.parameters())


_LOC_SCALE = ((0.0, 1.0), (-3.0, 0.5), (2.0, 30.0))
_LOC_SCALE_EXTREMES = ((0.01, 0.01), (1e5, 1e-3), (-1e5, 1e5), (0.0, 1e-5))
_SHAPE_SCALE = ((1.5, 2.0), (1.0, 0.7), (0.05, 1.0), (1e4, 3.0))
_SHAPE_SCALE_EXTREMES = ((1e-2, 1.0), (1e5, 1e3), (1e-3, 1e-3))
_SCALE = ((1.0,), (0.05,), (1e4,))
_SCALE_EXTREMES = ((1e-5,), (1e5,))
_SHAPES = ((2.0, 3.0), (1.0, 1.0), (0.05, 0.3), (0.3, 4.0), (1e4, 2e4))
_SHAPES_EXTREMES = ((1e-3, 1e-2), (1e-2, 1e4), (1e5, 1e-3), (1e5, 1e5))

CASES = {
    "Exponential": Case(
        rep.Exponential, lambda rate: st.expon(scale=1 / rate), _SCALE, _SCALE_EXTREMES
    ),
    "Cauchy": Case(rep.Cauchy, st.cauchy, _LOC_SCALE, _LOC_SCALE_EXTREMES),
    "Rayleigh": Case(
        rep.Rayleigh, lambda s: st.rayleigh(scale=s), _SCALE, _SCALE_EXTREMES
    ),
    "Pareto": Case(
        rep.Pareto,
        lambda a, m: st.pareto(a, scale=m),
        _SHAPE_SCALE,
        _SHAPE_SCALE_EXTREMES,
    ),
    "Weibull": Case(
        rep.Weibull,
        lambda k, s: st.weibull_min(k, scale=s),
        _SHAPE_SCALE,
        _SHAPE_SCALE_EXTREMES,
    ),
    "Gompertz": Case(
        rep.Gompertz,
        lambda a, b: st.gompertz(a, scale=1 / b),
        _SHAPE_SCALE,
        _SHAPE_SCALE_EXTREMES,
    ),
    "Gumbel": Case(rep.Gumbel, st.gumbel_r, _LOC_SCALE, _LOC_SCALE_EXTREMES),
    "LogUniform": Case(
        rep.LogUniform,
        st.loguniform,
        ((1.0, 2.0), (0.1, 20.0), (1e-3, 1e3)),
        ((1e-15, 1e15), (0.99999, 1.00001)),
    ),
    "Kumaraswamy": Case(
        rep.Kumaraswamy,
        Kumaraswamy,
        _SHAPES,
        ((1e-3, 1e-2), (1e-2, 30.0), (1e5, 1e-3), (1e5, 1e5)),
    ),
    "Laplace": Case(rep.Laplace, st.laplace, _LOC_SCALE, _LOC_SCALE_EXTREMES),
    "Logistic": Case(rep.Logistic, st.logistic, _LOC_SCALE, _LOC_SCALE_EXTREMES),
    "StudentT": Case(
        rep.StudentT,
        st.t,
        ((5.0, 1.0, 2.0), (0.05, 0.0, 1.0), (1.0, -3.0, 0.5), (1e4, 0.0, 3.0)),
        ((1e-2, 0.0, 1.0), (1e5, 1e5, 1e-3), (1e-3, 1.0, 1.0)),
    ),
    "Uniform": Case(
        rep.Uniform,
        lambda low, high: st.uniform(low, high - low),
        ((0.0, 1.0), (-3.0, 0.5), (-1e4, 1e4)),
        ((1.0, 1.00001), (-1e-5, 0.0), (1e5, 2e5)),
    ),
    "Triangular": Case(
        rep.Triangular,
        lambda low, mode, high: st.triang((mode - low) / (high - low), low, high - low),
        ((0.0, 0.3, 1.0), (-3.0, -2.9, 0.5), (0.0, 0.0, 2.0), (-1.0, 1e4, 1e4)),
        ((1.0, 1.00001, 1.00002), (-1e-5, 0.0, 0.0), (1e5, 1e5, 2e5)),
    ),
    "LogNormal": Case(
        rep.LogNormal,
        lambda loc, log_scale: st.lognorm(np.exp(log_scale), scale=np.exp(loc)),
        ((0.0, 0.0), (-3.0, -2.0), (2.0, 1.0)),
        ((0.01, 2.0), (3.0, 5.0), (-40.0, 2.0)),
    ),
    "LogGamma": Case(rep.LogGamma, LogGamma, _SHAPE_SCALE, _SHAPE_SCALE_EXTREMES),
    "Gamma": Case(
        rep.Gamma,
        lambda a, b: st.gamma(a, scale=1 / b),
        _SHAPE_SCALE,
        _SHAPE_SCALE_EXTREMES,
    ),
    "ChiSquared": Case(
        rep.ChiSquared, st.chi2, ((3.0,), (0.1,), (1e4,)), ((1e-3,), (1e5,))
    ),
    "Erlang": Case(
        lambda rate: rep.Erlang(rate, 3),
        lambda rate: st.erlang(3, scale=1 / rate),
        _SCALE,
        _SCALE_EXTREMES,
    ),
    "LogBetaOdds": Case(rep.LogBetaOdds, LogBetaOdds, _SHAPES, _SHAPES_EXTREMES),
    "Beta": Case(rep.Beta, st.beta, _SHAPES, _SHAPES_EXTREMES),
    "FisherSnedecor": Case(
        rep.FisherSnedecor,
        st.f,
        ((4.0, 6.0), (2.0, 2.0), (0.1, 3.0), (5.0, 0.1), (1e4, 2e4)),
        _SHAPES_EXTREMES,
    ),
    "TruncatedNormal": Case(
        rep.TruncatedNormal,
        lambda loc, scale, low, high: st.truncnorm(
            (low - loc) / scale, (high - loc) / scale, loc, scale
        ),
        (
            (0.0, 1.0, -1.0, 2.0),
            (0.3, 2.0, -INF, INF),
            (0.0, 1.0, 20.0, INF),
            (1.0, 1.0, -INF, -5.0),
            (0.0, 1.0, 5.5, 1e6),
            (2.0, 0.5, 3.0, 7.0),
        ),
        ((0.0, 1.0, 100.0, INF), (0.0, 1e-3, -1e3, 0.0), (0.0, 1e4, 1.0, 1.001)),
    ),
}

HAS_QUANTILE = [
    name for name, case in CASES.items() if hasattr(case.family(np.float32), "quantile")
]
