"""The functions of a trained run as its artefacts have them.

Each is of a batch, and takes and returns plain arrays by their names: a class of this
code could not be read where the code is not. The weights are an argument: one file of
them serves every function, and XLA has given wrong numbers on a CPU for products with a
large constant.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from aevb.marginal import curve_sizes
from experiments.evaluation.estimators import importance
from experiments.program.posteriors import closed_form_std
from experiments.training.opened import Opened

__all__ = ["Function", "Input", "flat_weights", "functions"]

_Arrays = dict[str, jax.Array]

_SYMBOLS = {"z": "q(z|x)", "x": "p(x|z)"}


class Input(NamedTuple):
    """An input of a function.

    Attributes:
      shape: of one datapoint.
      dtype: of its numbers.
      meaning: for a person.
      values: what they must be, in the loader's words: "range", "binary".
    """

    shape: tuple[int, ...]
    dtype: str
    meaning: str
    values: Mapping[str, Any] = {}


class Function(NamedTuple):
    """A function of a trained model.

    Attributes:
      name: of its artefact.
      call: `call(weights, *inputs) -> {name: array}`, of a batch.
      weights: `{name: array}` that `call` takes, of `flat_weights`.
      inputs: by name, in their order.
      about: JSON about it.
      outputs: `{name: JSON about it}`; the shapes follow from `call`.
    """

    name: str
    call: Callable[..., _Arrays]
    weights: dict[str, np.ndarray]
    inputs: dict[str, Input]
    about: dict[str, Any]
    outputs: dict[str, dict[str, Any]]


def flat_weights(params: Any) -> dict[str, np.ndarray]:
    """The parameters of a run by their paths, such as "encoder/hidden_0/kernel".

    Args:
      params: of a run's model.

    >>> flat_weights({"decoder": {"bias": jnp.zeros(2)}})
    {'decoder/bias': array([0., 0.], dtype=float32)}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def functions(
    opened: Opened, *, num_samples: int
) -> tuple[list[Function], dict[str, str]]:
    """The functions that a run has, and why it has not the others.

    Encoder and decoder have the products of `config.precision`, as in the bound and the
    pictures, log p(x) those of `config.eval.precision`. With a posterior over the
    weights the functions are at its means, as the program's pictures are, and log p(x)
    is the predictive one.

    Args:
      opened: the run.
      num_samples: K of log p(x).

    Returns:
      The functions, and `{name: reason}` of those that are left out.
    """
    config, program = opened.config, opened.program
    xs = Input((program.test.shape[1],), "float32", _pixels(opened), {"range": [0, 1]})
    keys = Input((2,), "uint32", "the data of threefry2x32 keys of jax.random")
    made, left_out = [_decode(opened), _sample(opened, keys)], {}
    no_encoder = "the run was trained by MCEM, which has no encoder"
    if program.has_encoder:
        made.insert(0, _encode(opened, xs))
    else:
        left_out["encode"] = no_encoder
    if not program.is_likelihood:
        left_out["log_likelihood"] = (
            "grey pixels under a Bernoulli have no likelihood, so there is no log "
            "p(x): train with --config.data.binarization=dynamic or static"
        )
    elif not program.has_encoder:
        left_out["log_likelihood"] = f"{no_encoder}, and it is the proposal"
    else:
        binary = config.likelihood == "bernoulli"
        xs = xs._replace(values={"range": [0, 1], "binary": binary})
        made.append(_log_likelihood(opened, keys, xs, num_samples))
    return made, left_out


def _encode(opened: Opened, xs: Input) -> Function:
    program = opened.program

    def one(params: Any, x: jax.Array) -> _Arrays:
        return _parameters(program.model.encode(params, x))

    q = jax.eval_shape(program.model.encode, opened.params, _example(xs))
    return Function(
        "encode",
        *_batched({"encoder": opened.params["encoder"]}, one),
        {"xs": xs},
        _about(opened, "x to q(z|x), the approximate posterior")
        | {"distribution": _family(q)},
        _meanings(q, "z"),
    )


def _decode(opened: Opened) -> Function:
    program = opened.program

    def one(params: Any, z: jax.Array) -> _Arrays:
        return _parameters(program.model.decode(params, z))

    zs = Input((opened.config.latent_dim,), "float32", "z, the latent")
    p = jax.eval_shape(program.model.decode, opened.params, _example(zs))
    return Function(
        "decode",
        *_batched({"decoder": opened.params["decoder"]}, one),
        {"zs": zs},
        _about(opened, "z to p(x|z), the likelihood") | {"distribution": _family(p)},
        _meanings(p, "x"),
    )


def _sample(opened: Opened, keys: Input) -> Function:
    program, z = opened.program, jnp.zeros(opened.config.latent_dim)
    prior = aevb.prior_or_normal(program.model.prior(opened.params), z)

    def one(params: Any, data: jax.Array) -> _Arrays:
        key = jax.random.wrap_key_data(data, impl="threefry2x32")
        # The report's pictures have the z of the same keys. The key of x is none that
        # the draw of z makes, whose dimensions count from 0.
        z = params["prior"].sample(key)
        p: Any = program.model.decode(params, z)
        x = p.sample(jax.random.fold_in(key, jnp.uint32(0xFFFFFFFF)))
        return {"z": z, "mean": p.mean, "x": x}

    # The prior is an argument too: XLA and jax.export compute with constants, such as
    # a gamma's concentration, before they compile, and round otherwise.
    parts = {"decoder": opened.params["decoder"], "prior": prior}
    return Function(
        "sample",
        *_batched(parts, one),
        {"keys": keys},
        _about(opened, "draws of p(z) p(x|z)") | {"prior": _constants(prior)},
        {
            "z": {"meaning": "a draw of the prior p(z)", "unit": "of z"},
            "mean": {"meaning": "the mean of p(x|z)", "unit": "of x"},
            "x": {"meaning": "a draw of p(x|z)", "unit": "of x"},
        },
    )


def _log_likelihood(
    opened: Opened, keys: Input, xs: Input, num_samples: int
) -> Function:
    chunk_size = opened.config.eval.chunk_size
    estimator = importance(
        opened.program.likelihood_model,
        num_samples=num_samples,
        chunk_size=chunk_size,
        batch_size=opened.config.eval.batch_size,
    )

    def one(params: Any, data: jax.Array, x: jax.Array) -> _Arrays:
        key = jax.random.wrap_key_data(data, impl="threefry2x32")
        return estimator.function(params, key, x)

    about = _about(
        opened,
        "x to an estimate of log p(x) by importance sampling with q(z|x): its "
        "expectation is below log p(x)",
    )
    if opened.config.weights != "point":
        about["weights_are"] = "drawn of q(theta): it is the predictive log p(x)"
    density = "of a binary image"
    if opened.config.likelihood == "gaussian":
        density = f"a density, of pixels in units of byte / {opened.config.data.scale}"
    return Function(
        "log_likelihood",
        *_batched(opened.params, one),
        {"keys": keys, "xs": xs},
        about
        | {"precision": opened.config.eval.precision}
        | estimator.settings
        | {"batch_size_of_the_program": estimator.batch_size},
        {
            "log_likelihood": {"meaning": f"log p(x), {density}", "unit": "nats"},
            "std_error": {"meaning": "its standard error over draws", "unit": "nats"},
            "ess": {"meaning": "effective sample size, 1 to K", "unit": "draws"},
            "pareto_k": {"meaning": "k-hat: above 0.7 std_error is not to be trusted"},
            "curve": {
                "meaning": "the same with the first "
                f"{', '.join(map(str, curve_sizes(num_samples)))} draws",
                "unit": "nats",
            },
        },
    )


def _batched(
    params: Any, one: Callable[..., _Arrays]
) -> tuple[Callable[..., _Arrays], dict[str, np.ndarray]]:
    """`call` and `weights` of a `Function`, from `one(params, *inputs)`."""
    weights, treedef = flat_weights(params), jax.tree.structure(params)
    names = list(weights)

    def call(weights: _Arrays, *inputs: jax.Array) -> _Arrays:
        # A dict that JAX has rebuilt is in the order of its names.
        own = jax.tree.unflatten(treedef, [weights[name] for name in names])
        return jax.vmap(one, (None, *[0] * len(inputs)))(own, *inputs)

    return call, weights


def _parameters(distribution: Any) -> _Arrays:
    """What a distribution is made of, by its names, and its moments."""
    found = {
        field.name: getattr(distribution, field.name)
        for field in dataclasses.fields(distribution)
    }
    found["mean"] = distribution.mean
    std = closed_form_std(distribution)
    return found if std is None else found | {"std": std}


def _meanings(distribution: Any, of: str) -> dict[str, dict[str, Any]]:
    symbol, family = _SYMBOLS[of], type(distribution).__name__
    known = {
        "mean": {"meaning": f"the mean of {symbol}", "unit": f"of {of}"},
        "std": {"meaning": f"the standard deviation of {symbol}", "unit": f"of {of}"},
    }
    if isinstance(distribution, aevb.Bernoulli):
        known["mean"] = {"meaning": "P(x = 1)", "unit": "probability"}
    return {
        name: known.get(name, {"meaning": f"{name} of {symbol}, a {family}"})
        for name in jax.eval_shape(_parameters, distribution)
    }


def _family(distribution: Any) -> dict[str, str]:
    """The name of a family, and its density and parameters as its class has them."""
    text = (type(distribution).__doc__ or "").partition(">>>")[0]
    return {"family": type(distribution).__name__, "about": " ".join(text.split())}


def _constants(prior: Any) -> dict[str, Any]:
    """The prior as JSON: a parameter that is one number in all dimensions is that."""
    parameters = {}
    for field in dataclasses.fields(prior):
        values = np.asarray(getattr(prior, field.name))
        same = np.unique(values)
        parameters[field.name] = same.item() if same.size == 1 else values.tolist()
    return _family(prior) | {"parameters": parameters}


def _about(opened: Opened, meaning: str) -> dict[str, Any]:
    about = {"meaning": meaning, "precision": opened.config.precision}
    if opened.config.weights != "point":
        about["weights_are"] = "the means of q(theta)"
    return about


def _pixels(opened: Opened) -> str:
    fields, shape = opened.config.data, opened.dataset.image_shape
    size = " x ".join(map(str, shape))
    what = "0 or 1" if fields.binarization != "grey" else f"byte / {fields.scale}"
    return f"x, the {size} pixels of an image, each {what}"


def _example(of: Input) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(of.shape, of.dtype)
