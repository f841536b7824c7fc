"""Every reparameterisation of section 2.4, as pytree distributions.

A family is used wherever a distribution is: as q(z|x), as a prior, as a likelihood.
Its `sample(key)` is differentiable in every parameter, its `log_prob` is in nats, its
leaves are its parameters. Which strategy makes it is the class that it inherits, and
says which noise and which gradient it has:

    inverse CDF       z = F⁻¹(u)            `inverse_cdfs`     `inverse_cdf(...)`
    location-scale    z = loc + scale e     `location_scales`  `location_scale(...)`
    composition       z = T(y)              `compositions`     `transformed(...)`
    numerical         F(z) = u, solved      `numerical`        `numerical_inverse_cdf`

Of the paper's list (22: the logistic is in it twice) the Gaussian is `DiagNormal`. Off
the list: `TruncatedNormal`, `Kumaraswamy` and `LogUniform` (its "reciprocal").
"""

from aevb.reparameterizations.compositions import (
    Beta,
    ChiSquared,
    Dirichlet,
    Erlang,
    FisherSnedecor,
    Gamma,
    LogBetaOdds,
    LogGamma,
    LogNormal,
    LogRatios,
)
from aevb.reparameterizations.families import (
    Composition,
    Family,
    InverseCdf,
    LocationScale,
    Transformed,
    inverse_cdf,
    location_scale,
    transformed,
)
from aevb.reparameterizations.gamma_draws import log_gamma_draw
from aevb.reparameterizations.inverse_cdfs import (
    Cauchy,
    Exponential,
    Gompertz,
    Gumbel,
    Kumaraswamy,
    LogUniform,
    Pareto,
    Rayleigh,
    Reciprocal,
    Weibull,
)
from aevb.reparameterizations.levels import (
    Level,
    lower_level,
    uniform_level,
    upper_level,
)
from aevb.reparameterizations.location_scales import (
    Elliptical,
    Laplace,
    Logistic,
    StudentT,
    Triangular,
    Uniform,
)
from aevb.reparameterizations.numerical import TruncatedNormal, numerical_inverse_cdf
from aevb.reparameterizations.real_line import (
    Unconstrained,
    support_of,
    unconstrained,
)
from aevb.reparameterizations.transforms import (
    Affine,
    Between,
    Compose,
    Exp,
    Identity,
    Inverse,
    Power,
    Sigmoid,
    Simplex,
    Transform,
    compose,
    interval,
)

__all__ = [
    "Affine",
    "Beta",
    "Between",
    "Cauchy",
    "ChiSquared",
    "Compose",
    "Composition",
    "Dirichlet",
    "Elliptical",
    "Erlang",
    "Exp",
    "Exponential",
    "Family",
    "FisherSnedecor",
    "Gamma",
    "Gompertz",
    "Gumbel",
    "Identity",
    "Inverse",
    "InverseCdf",
    "Kumaraswamy",
    "Laplace",
    "Level",
    "LocationScale",
    "LogBetaOdds",
    "LogGamma",
    "LogNormal",
    "LogRatios",
    "LogUniform",
    "Logistic",
    "Pareto",
    "Power",
    "Rayleigh",
    "Reciprocal",
    "Sigmoid",
    "Simplex",
    "StudentT",
    "Transform",
    "Transformed",
    "Triangular",
    "TruncatedNormal",
    "Unconstrained",
    "Uniform",
    "Weibull",
    "compose",
    "interval",
    "inverse_cdf",
    "location_scale",
    "log_gamma_draw",
    "lower_level",
    "numerical_inverse_cdf",
    "support_of",
    "transformed",
    "unconstrained",
    "uniform_level",
    "upper_level",
]
