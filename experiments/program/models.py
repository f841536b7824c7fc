"""The networks that a configuration names, as a `Model`."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

import aevb
from aevb import nets
from experiments.config import ACTIVATIONS, INITIALIZERS
from experiments.data import Dataset
from experiments.errors import ConfigError
from experiments.program.posteriors import Family, family_of

__all__ = [
    "build_model",
    "draw_weights",
    "likelihood_model",
    "reparameterization",
]

_PRODUCTS = {
    "float32": nets.float32_dot_general,
    "tensorfloat32": nets.tensorfloat32_dot_general,
    "bfloat16": nets.bfloat16_dot_general,
}


def build_model(config: ConfigDict, dataset: Dataset, precision: str) -> aevb.Model:
    """The encoder, the decoder and the prior of a validated configuration.

    Args:
      config: validated.
      dataset: gives the size of x, and the mean image.
      precision: of the matrix products.
    """
    data_dim = dataset.train.images.shape[1]
    shared: dict[str, Any] = {
        "activation": ACTIVATIONS[config.activation],
        "kernel_init": INITIALIZERS[config.init](config.init_scale),
        "bias_init": nn.initializers.normal(config.bias_init_scale),
        "dot_general": _PRODUCTS[precision],
    }
    family = family_of(config)
    model = nets.linen_model(
        _encoder(config, family, shared),
        _decoder(config, dataset, data_dim, shared),
        family.prior,
    )
    model = _with_posterior(config, _standardised(model, family))
    return _trained_part(config, model)


def reparameterization(config: ConfigDict) -> aevb.Reparameterization:
    """How weights are drawn from their posterior."""
    if config.weight_noise == "local":
        return nets.local_reparameterization
    return aevb.global_reparameterization


def draw_weights(config: ConfigDict, key: jax.Array, params: Any) -> Any:
    """The weights that one datapoint is evaluated with: a draw, if there is q(theta).

    Args:
      config: validated.
      key: of the datapoint; folded here, so that its other uses are its own.
      params: of a model of `build_model`.
    """
    if config.weights == "point":
        return params
    key = jax.random.fold_in(key, jnp.uint32(0xFFFFFFFF))
    # For one datapoint the two ways of drawing are one, and this is the cheap one.
    return aevb.sample_weights(
        key, params, reparameterization=nets.local_reparameterization
    )


def likelihood_model(
    config: ConfigDict, model: aevb.Model, example: jax.Array
) -> aevb.Model:
    """The model that log p(x) is estimated with: its latent is made of real numbers.

    Log p(x) is the same. HMC, annealing and quadrature walk on the real line, and
    importance sampling has the same weights there. With a posterior over the weights
    it is the predictive log p(x), and the noise of the weights is a part of the latent.

    Args:
      config: validated.
      model: of `build_model`.
      example: `[D]` gives the shape of x.
    """
    model = _on_real_line(config, model)
    if config.weights == "point":
        return model
    predictive = aevb.predictive_model(
        model, example, reparameterization=nets.local_reparameterization
    )

    def decoder_alone(params: Any) -> Any:
        # A proposal needs no noise: the encoder's mean is one as good.
        return params | {"encoder": aevb.weight_means(params["encoder"])}

    return predictive._replace(
        encode=lambda params, x: predictive.encode(decoder_alone(params), x),
        decode=lambda params, z: predictive.decode(decoder_alone(params), z),
        prior=lambda params: predictive.prior(decoder_alone(params)),
    )


def _with_posterior(config: ConfigDict, model: aevb.Model) -> aevb.Model:
    """The model with q(theta) among its parameters; it is evaluated at the means.

    A draw of `aevb.sample_weights` in place of the parameters is taken as it is.
    """
    if config.weights == "point":
        return model
    parts = ["decoder"] + ["encoder"] * (config.weights == "posterior_all")

    def init(key: jax.Array, x: jax.Array) -> Any:
        params = model.init(key, x)
        scale = config.weight_init_scale
        return params | {
            name: aevb.weight_posterior(params[name], scale=scale) for name in parts
        }

    def plain(params: Any) -> Any:
        return {
            name: part.loc if isinstance(part, aevb.DiagNormal) else part
            for name, part in params.items()
        }

    return model._replace(
        init=init,
        encode=lambda params, x: model.encode(plain(params), x),
        decode=lambda params, z: model.decode(plain(params), z),
    )


def _on_real_line(config: ConfigDict, model: aevb.Model) -> aevb.Model:
    if config.posterior == "normal":
        return model

    def real(params: Any) -> aevb.Unconstrained:
        prior: Any = model.prior(params)
        encode, decode = partial(model.encode, params), partial(model.decode, params)
        return aevb.unconstrained(encode, decode, prior)

    return model._replace(
        encode=lambda params, x: real(params).encode(x),
        decode=lambda params, z: real(params).decode(z),
        prior=lambda params: real(params).prior,
    )


def _encoder(config: ConfigDict, family: Family, shared: dict[str, Any]) -> nn.Module:
    widths = tuple(config.hidden_dims)
    if config.posterior == "normal":
        return nets.GaussianMLP(config.latent_dim, widths, **shared)
    return nets.FamilyMLP(
        config.latent_dim,
        widths,
        family=family.posterior,
        num_parameters=family.num_parameters,
        **shared,
    )


def _decoder(
    config: ConfigDict, dataset: Dataset, data_dim: int, shared: dict[str, Any]
) -> nn.Module:
    widths = tuple(config.hidden_dims)[::-1]
    if config.likelihood == "gaussian":
        log_variance_init = nn.initializers.zeros
        if config.log_variance_init_scale:
            scale = config.log_variance_init_scale
            log_variance_init = nn.initializers.normal(scale)
        return nets.GaussianMLP(
            data_dim,
            widths,
            mean_activation=nn.sigmoid,
            log_variance_init=log_variance_init,
            min_log_scale=math.log(config.min_scale) if config.min_scale else None,
            **shared,
        )
    output_bias_init = None
    if config.output_bias_from_data:
        # Clipped as in Burda et al.'s code: some pixels are 0 in every image.
        mean = dataset.train.images.mean(axis=0) / config.data.scale
        mean = np.clip(mean, 1e-3, 1 - 1e-3)
        logit = jnp.asarray(np.log(mean) - np.log1p(-mean), jnp.float32)
        output_bias_init = nn.initializers.constant(logit)
    return nets.BernoulliMLP(
        data_dim, widths, output_bias_init=output_bias_init, **shared
    )


def _standardised(model: aevb.Model, family: Family) -> aevb.Model:
    """The model whose decoder gets (z − loc) / scale."""
    if family.prior is None:
        return model

    def decode(params: Any, z: jax.Array) -> Any:
        return model.decode(params, (z - family.loc) / family.scale)

    return model._replace(decode=decode)


def _trained_part(config: ConfigDict, model: aevb.Model) -> aevb.Model:
    """The model, without the encoder's parameters where nothing trains them."""
    if config.algorithm != "mcem":
        return model

    def init(key: jax.Array, x: jax.Array) -> Any:
        params = model.init(key, x)
        return {name: value for name, value in params.items() if name != "encoder"}

    def encode(params: Any, x: jax.Array) -> Any:
        raise ConfigError(
            "config.algorithm is mcem, which trains no encoder: this needs one"
        )

    return model._replace(init=init, encode=encode)
