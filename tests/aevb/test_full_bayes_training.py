"""Full variational Bayes as a training run: devices, lanes, and the compiler."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import aevb
from aevb import nets

KEY = jax.random.key(0)
DATA = jnp.float32(np.random.default_rng(0).uniform(size=(16, 5)) < 0.4)
MODEL = nets.linen_model(nets.GaussianMLP(2, (4,)), nets.BernoulliMLP(5, (4,)))
pytestmark = pytest.mark.usefixtures("standard_promotion")
POINTS = MODEL.init(KEY, DATA[0])
PARAMS = POINTS | {"decoder": aevb.weight_posterior(POINTS["decoder"], scale=0.3)}


def bound(params, key, x):
    args = partial(MODEL.encode, params), partial(MODEL.decode, params)
    return aevb.elbo(*args, key, x).value, None


def per_batch(prior, axis_name=None):
    objective = aevb.map_objective(bound, num_datapoints=len(DATA), axis_name=axis_name)
    return aevb.full_bayes_objective(objective, num_datapoints=len(DATA), prior=prior)


def locally(prior, axis_name=None):
    of_one = aevb.full_bayes_objective(
        bound,
        num_datapoints=len(DATA),
        prior=prior,
        reparameterization=nets.local_reparameterization,
    )
    return aevb.map_objective(of_one, num_datapoints=len(DATA), axis_name=axis_name)


both = pytest.mark.parametrize("make", [per_batch, locally])


@partial(jax.jit, static_argnames=("make", "axis_name"))
def update(make, key, batch, prior_scale, axis_name=None):
    """The state and info after one update."""
    prior = partial(aevb.weight_prior, scale=prior_scale)
    algorithm = aevb.gradient_algorithm(
        make(prior, axis_name), optax.sgd(0.1), axis_name=axis_name
    )
    return algorithm.update(key, algorithm.init(PARAMS), batch)


def assert_trees_close(tree, truth):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), tree, truth)


@both
def test_two_devices_make_the_update_of_one(make):
    """One θ a minibatch is one θ of all devices: other draws would differ by far."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.shard_map(
        lambda key, batch: update(make, key, batch, 1.0, axis_name="data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    truth = update(make, KEY, DATA, 1.0)
    assert_trees_close(jax.jit(split)(KEY, DATA), truth)
    other = update(make, jax.random.key(1), DATA, 1.0)
    assert np.abs(other[1].objective - truth[1].objective) > 0.1


def test_lanes_are_single_runs_and_jit_is_rounding():
    """Over seeds and scales of the prior; the objective alone is eager."""
    keys, scales = jax.random.split(KEY, 2), jnp.array([0.3, 1.0])
    lanes = jax.vmap(partial(update, locally), (0, None, 0))(keys, DATA, scales)
    single = update(locally, keys[1], DATA, 1.0)
    assert_trees_close(jax.tree.map(lambda leaf: leaf[1], lanes), single)
    eager = locally(aevb.weight_prior)(PARAMS, keys[1], DATA)
    assert_trees_close((single[1].objective, single[1].aux), eager)
