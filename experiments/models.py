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
from experiments.posteriors import Family, family_of

__all__ = ["build_model", "likelihood_model"]

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
    return _trained_part(config, _standardised(model, family))


def likelihood_model(config: ConfigDict, model: aevb.Model) -> aevb.Model:
    """The model whose latent is a real vector: what log p(x) is estimated with.

    Log p(x) is the same. HMC, annealing and quadrature walk on the real line, and
    importance sampling has the same weights there.
    """
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
