"""The configuration of a training run: every field, its default and its check.

A file in `experiments/configs/` starts from `base()` and changes fields; the command
line changes them again (`--config.latent_dim=20`); `validate` then looks at every value
before anything is compiled.
"""

import ast
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from experiments.errors import ConfigError

__all__ = [
    "ACTIVATIONS",
    "ALGORITHMS",
    "INITIALIZERS",
    "base",
    "flatten",
    "get_field",
    "optimizer_arguments",
    "parse_argument",
]


ACTIVATIONS: dict[str, Callable] = {
    "elu": nn.elu,
    "gelu": nn.gelu,
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "tanh": nn.tanh,
}
# Scaled by `init_scale`: the standard deviation of "normal", a gain on the others.
INITIALIZERS: dict[str, Callable[[float], Callable]] = {
    "glorot_uniform": lambda s: nn.initializers.variance_scaling(
        s**2, "fan_avg", "uniform"
    ),
    "he_normal": lambda s: nn.initializers.variance_scaling(
        2 * s**2, "fan_in", "truncated_normal"
    ),
    "lecun_normal": lambda s: nn.initializers.variance_scaling(
        s**2, "fan_in", "truncated_normal"
    ),
    "normal": nn.initializers.normal,
}
ALGORITHMS = ("aevb", "wake_sleep", "mcem")
# What N(0, s^2) is on: see `aevb.log_weight_prior` for the author's two readings.
WEIGHT_PRIORS = ("matrices", "encoder_biases", "all")
ESTIMATORS = ("sgvb_a", "sgvb_b", "stl", "iwae")
SCHEDULES = ("constant", "cosine", "burda")
BINARIZATIONS = ("dynamic", "static", "grey")
# Families of q(z|x), each with its prior: `experiments.program.posteriors`.
POSTERIORS = (
    "normal",
    "laplace",
    "logistic",
    "student_t",
    "gamma",
    "log_normal",
    "weibull",
    "beta",
    "kumaraswamy",
    "dirichlet",
)
# Of these the KL to the prior has no closed form: the bound is eq. 6.
GENERIC_POSTERIORS = ("logistic", "student_t", "kumaraswamy")
LIKELIHOODS = ("bernoulli", "gaussian")
# What the matrix products are on every platform: true float32 (operands of 24
# significant bits), TF32 (11 bits; more on a platform without TF32, such as a CPU), or
# bfloat16 (8 bits). The sums are float32. JAX's own default is float32 on a CPU, TF32
# on a recent GPU and bfloat16 on a TPU.
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
# A posterior over the decoder's parameters (Appendix F), or over the encoder's as well.
WEIGHTS = ("point", "posterior", "posterior_all")
# One draw of its noise for each activation of each datapoint (Kingma et al. 2015), or
# one of the weights for all of a minibatch.
WEIGHT_NOISES = ("local", "shared")
CURVES = ("valid", "test")
STREAMS = ("auto", "always", "never")


def base() -> ConfigDict:
    """The fields of a run, with the defaults of `python -m experiments.mnist`."""
    config = ConfigDict()
    config.seed = 0

    config.data = ConfigDict()
    config.data.name = "mnist"  # any name that `python -m experiments.data` knows
    config.data.path = ""  # a directory of IDX files, or of prepared TFDS data
    config.data.binarization = "dynamic"  # dynamic, static (drawn once), grey
    config.data.scale = 255  # P(x = 1), or the grey value, is byte / scale: 255 or 256
    config.data.stream = "auto"  # read while training: auto (> 2 GiB), always, never
    config.data.num_train = 0  # the first so many training images; 0: all but valid
    config.data.num_valid = 10_000  # the last so many of the training file

    config.latent_dim = 40  # N_z
    config.posterior = "normal"  # the family of q(z|x), and with it the prior p(z)
    # Of the prior: a concentration, or the degrees of freedom of student_t; 0: 1, or 5.
    config.prior_shape = 0.0
    config.hidden_dims = (500, 500)  # of the encoder; the decoder mirrors it
    config.activation = "gelu"
    config.init = "lecun_normal"
    config.init_scale = 1.0  # a gain on `init`, or the standard deviation of "normal"
    config.bias_init_scale = 0.0  # standard deviation of the biases
    config.output_bias_from_data = True  # start from the mean image
    config.likelihood = "bernoulli"  # or gaussian, with a sigmoid mean
    # Of a gaussian likelihood: its least standard deviation, in units of x; 0: none.
    config.min_scale = 0.0
    # And the standard deviation of the first weights of its log variance.
    config.log_variance_init_scale = 0.0
    # Of products: float32, tensorfloat32, bfloat16; auto times float32 and bfloat16.
    config.precision = "float32"

    config.algorithm = "aevb"  # wake_sleep, mcem: the paper's baselines
    config.dream_clip = 0.0  # of wake_sleep: a dream's P(1) stays this far from 0 and 1
    config.estimator = "sgvb_b"  # sgvb_a (eq. 6), sgvb_b (eq. 7), stl, iwae
    config.num_samples = 1  # L, or K of iwae
    config.beta = 1.0  # of the KL in what is maximised; 1 is the bound itself
    config.weight_prior = 0.0  # standard deviation of N(0, s^2) on weights; 0: none
    config.weight_prior_on = "matrices"  # matrices, encoder_biases (as well), all

    config.weights = (
        "point"  # posterior: q(theta) on the decoder; posterior_all: on both
    )
    config.weight_noise = "local"  # of q(theta): local, shared
    config.weight_init_scale = 0.1  # the first standard deviation of q(theta)

    config.epochs = 50
    config.train_samples = 0  # instead of epochs: 10_000_000 is the paper's 1e7
    config.batch_size = 200  # M
    config.optimizer = "nadam"  # any of optax by name
    config.optimizer_args = ""  # its other arguments: "b1=0.9, eps=1e-4"
    config.learning_rate = 3e-3
    config.schedule = "cosine"  # constant, cosine (to zero), burda (8 stages)
    config.warmup = 0.1  # the share of training over which the step size rises from 0

    config.hold = 0  # first updates that fill the optimizer's sums and move nothing

    config.mcem = ConfigDict()
    config.mcem.leapfrog_steps = 10  # of the one proposal of an iteration
    config.mcem.weight_updates = 5  # of an iteration, on what was drawn
    config.mcem.acceptance = 0.9  # what the step size of the integrator is steered to
    config.mcem.chunk_size = 1000  # datapoints at once (0: all): a CPU's cache

    config.eval = ConfigDict()
    config.eval.every = 5  # epochs between evaluations; the last one always is
    config.eval.curve = "valid"  # the split that is evaluated while training
    config.eval.num_samples = 5000  # K of the final log p(x); 0: do not estimate it
    config.eval.num_points = 500  # evenly spaced test points for it; 0: all
    config.eval.proxy_samples = 30  # K of all test points, for their mean; 0: no mean
    config.eval.std_error = 0.0  # of that mean, nats: as many random points as it takes
    config.eval.probe_points = 10_000  # labelled training codes; 0: no probes
    config.eval.chunk_size = 500  # samples of a datapoint at a time
    config.eval.batch_size = 10  # datapoints at a time
    config.eval.precision = "float32"  # of log p(x), AIS and HMC; as `precision`

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 5  # epochs between checkpoints; a signal saves one too
    config.checkpoint.keep = 3  # the last so many, and the best on validation
    config.checkpoint.at = ()  # epochs whose checkpoints are kept besides
    return config


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested fields by their full names, with tuples as JSON has them.

    >>> flatten({"data": {"name": "mnist"}, "hidden_dims": (500, 500)})
    {'data.name': 'mnist', 'hidden_dims': [500, 500]}

    Args:
      fields: mappings at any depth, such as `config.to_dict()`.
      prefix: put in front of every name.

    Returns:
      `{name: value}` in the order of `fields`.
    """
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def get_field(config: ConfigDict, name: str) -> Any:
    """Returns a field by its full name.

    >>> get_field(base(), "data.name")
    'mnist'

    Args:
      config: a configuration.
      name: with dots where the field is in a group.

    Raises:
      KeyError: there is no such field.
    """
    for part in name.split("."):
        config = config[part]
    return config


def parse_argument(argument: str, **defaults: Any) -> dict[str, Any]:
    """Reads the `:name=value,name=value` after a config file's name.

    Args:
      argument: what followed the colon; "" gives the defaults.
      **defaults: the names that the file knows, with values of their type.

    Raises:
      ConfigError: a name that the file does not know, or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, argument.split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            raise ConfigError(
                f"config argument {item!r} is not one of this file's: expected "
                + ", ".join(f"{key}={value}" for key, value in defaults.items())
            )
        try:
            values[name] = _number(text, type(defaults[name]))
        except (ValueError, SyntaxError):
            raise ConfigError(
                f"config argument {name}={text!r} is not "
                f"{type(defaults[name]).__name__}: write {name}={defaults[name]}"
            ) from None
    return values


def _number(text: str, kind: type) -> Any:
    if kind is str:
        return text
    value = kind(float(text))
    if value != float(text):
        raise ValueError(text)
    return value


def optimizer_arguments(text: str) -> dict[str, Any]:
    """Reads `optimizer_args`, "b1=0.9, eps=1e-4", into keyword arguments.

    Raises:
      ConfigError: it is not a list of keyword arguments with literal values.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        arguments = {}
        for keyword in call.keywords:
            if keyword.arg is None:
                raise ValueError
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
    except (SyntaxError, ValueError):
        raise ConfigError(
            f"config.optimizer_args is {text!r}, expected keyword arguments with "
            'literal values, such as "b1=0.9, eps=1e-4"'
        ) from None
    return arguments
