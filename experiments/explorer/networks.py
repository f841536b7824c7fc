"""The networks of a run as layers that a page can have, and what the rounding costs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import aevb
from experiments.errors import ConfigError
from experiments.explorer.packing import Store, pack_rows, unpack_rows
from experiments.training.opened import Opened

__all__ = ["Precision", "decoder_error", "for_page", "put_networks", "rounded"]


class Precision(NamedTuple):
    """Bytes of a weight of each network."""

    decoder: int
    encoder: int


def for_page(opened: Opened) -> tuple[ConfigDict, Any]:
    """The run as a page computes it: float32, and points for weights.

    Args:
      opened: a run.

    Returns:
      Its configuration with that precision, and the parameters: the means of those that
      have a posterior.

    Raises:
      ConfigError: a page cannot show this run.
    """
    shape = opened.dataset.image_shape
    if len(shape) == 3 and shape[2] != 1:
        raise ConfigError(
            f"{opened.dataset.name} has images of {shape[2]} colours, expected grey "
            "ones: the page draws with one brush"
        )
    if opened.config.posterior == "dirichlet":
        raise ConfigError(
            "config.posterior is dirichlet, whose z lies on a simplex: the page has "
            "axes that are independent in the prior; train with another posterior"
        )
    config = opened.config.copy_and_resolve_references()
    config.precision, config.weights = "float32", "point"
    return config, aevb.weight_means(opened.params)


def put_networks(
    store: Store, params: Mapping[str, Any], precision: Precision
) -> dict[str, dict[str, list[str]]]:
    """Adds the weights, and says which layers there are.

    Args:
      store: is changed.
      params: of points.
      precision: of the weight matrices; biases are float32.

    Returns:
      `{network: {"hidden": names, "heads": names}}`, in the order of the layers.
    """
    description = {}
    for network, num_bytes in precision._asdict().items():
        if network not in params:
            continue
        layers = params[network]
        for name, layer in layers.items():
            # A row is the weights of one unit.
            rows = pack_rows(np.asarray(layer["kernel"]).T, num_bytes)
            store.put_rows(f"{network}/{name}/kernel", rows)
            store.put(f"{network}/{name}/bias", layer["bias"])
        hidden = [name for name in layers if name.startswith("hidden_")]
        description[network] = {
            "hidden": sorted(hidden, key=lambda name: int(name.rpartition("_")[2])),
            # Of a Gaussian decoder and encoder, the mean and its log variance.
            "heads": sorted(set(layers) - set(hidden), key=lambda n: (n != "mean", n)),
        }
    return description


def rounded(params: Mapping[str, Any], precision: Precision) -> dict[str, Any]:
    """The parameters as the page has them, to measure with."""

    def layer(layer: Mapping[str, Any], num_bytes: int) -> dict[str, Any]:
        kernel = unpack_rows(pack_rows(np.asarray(layer["kernel"]).T, num_bytes)).T
        return dict(layer) | {"kernel": jnp.asarray(kernel)}

    return dict(params) | {
        network: {
            name: layer(value, num_bytes) for name, value in params[network].items()
        }
        for network, num_bytes in precision._asdict().items()
        if network in params
    }


def decoder_error(
    model: aevb.Model, params: Any, precision: Precision, zs: jax.Array
) -> float:
    """The largest difference of a pixel's mean that the rounding makes.

    Args:
      model: in float32.
      params: of points.
      precision: of the page.
      zs: `[n, J]` where it is looked at.
    """

    def mean(params: Any, z: jax.Array) -> jax.Array:
        p: Any = model.decode(params, z)
        return p.mean

    means = jax.jit(jax.vmap(mean, (None, 0)))
    difference = means(rounded(params, precision), zs) - means(params, zs)
    return float(jnp.max(jnp.abs(difference)))
