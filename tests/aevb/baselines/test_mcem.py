"""Monte Carlo EM against the linear-Gaussian model, whose EM is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from jax.sharding import AxisType, PartitionSpec

import aevb
from aevb import baselines, testing

KEY = jax.random.key(0)
PARAMS = {
    "w": jnp.array([[1.0, 0.5], [-0.3, 0.8], [0.7, -0.6]]),
    "b": jnp.array([0.2, -0.1, 0.4]),
    "log_sigma": jnp.array(-0.3),
}
X = jnp.array([0.5, -1.0, 2.0])


def decode(params, z):
    loc = jnp.matmul(params["w"], z, precision="highest") + params["b"]
    return aevb.DiagNormal(loc, jnp.broadcast_to(params["log_sigma"], loc.shape))


def model_of(params):
    return testing.linear_gaussian(params["w"], params["b"], params["log_sigma"])


def start_of(xs, chains=None, params=PARAMS, optimizer=None, **options):
    """An algorithm, its first state, and a jitted update of all datapoints."""
    chains = jnp.zeros((len(xs), 2)) if chains is None else chains
    algorithm = baselines.mcem(decode, optimizer or optax.sgd(0.0), chains, **options)
    everything = {"batch": xs, "indices": jnp.arange(len(xs))}
    update = jax.jit(lambda key, state: algorithm.update(key, state, **everything))
    return algorithm, algorithm.init(params), update


def assert_close(tree, truth, **tolerance):
    tolerance = tolerance or {"rtol": 2e-5, "atol": 1e-5}
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), tree, truth)


def test_the_e_step_samples_the_posterior(z_score):
    """4000 chains of one x after 60 iterations: mean and covariance, 4 s.e."""
    posterior = model_of(PARAMS).posterior(X)
    xs = jnp.tile(X, (4000, 1))
    _, state, update = start_of(xs)
    for key in jax.random.split(KEY, 60):
        state, _info = update(key, state)
    zs = state.opt_state.chains
    assert np.all(np.abs(z_score(zs, posterior.loc)) < 4)
    lower = np.asarray(posterior.scale_tril)
    centred = zs - posterior.loc[None]
    outer = jax.vmap(jnp.outer)(centred, centred)
    assert np.all(np.abs(z_score(outer, lower @ lower.T)) < 4)
    assert_close(state.params, PARAMS, atol=0)  # a step size of 0


def test_an_exact_draw_stays_one(z_score):
    """The posterior is invariant under the kernel, whatever the step size."""
    posterior = model_of(PARAMS).posterior(X)
    draw, move = jax.random.split(KEY)
    zs = jax.vmap(posterior.sample)(jax.random.split(draw, 20_000))

    def one(key, z):
        return baselines.e_step(partial(decode, PARAMS), key, X, z, 0.5)

    moved, acceptance = jax.vmap(one)(jax.random.split(move, 20_000), zs)
    assert 0.3 < float(jnp.mean(acceptance)) < 0.95  # some are refused
    assert np.mean(np.any(np.asarray(moved != zs), axis=1)) > 0.3
    assert np.all(np.abs(z_score(moved, posterior.loc)) < 4.9)
    lower = np.asarray(posterior.scale_tril)
    centred = moved - posterior.loc[None]
    outer = jax.vmap(jnp.outer)(centred, centred)
    assert np.all(np.abs(z_score(outer, lower @ lower.T)) < 4.9)


@pytest.mark.parametrize("target", [0.6, 0.9])
def test_acceptance_is_steered(target):
    xs = jax.random.normal(KEY, (200, 3))
    _, state, update = start_of(xs, target_acceptance=target, step_size=1e-3)
    found = []
    for key in jax.random.split(KEY, 150):
        state, info = update(key, state)
        found.append(float(info.aux["acceptance"]))
    assert np.mean(found[75:]) == pytest.approx(target, abs=0.02)


@pytest.mark.parametrize("num_updates", [1, 5])
def test_the_m_step_by_hand(num_updates):
    """Plain ascent of the mean of log p(x, z) at the moved chains, and of the prior.

    d/dW = (x - Wz - b) z' / sigma^2, d/db without z', d/dlog sigma = |r|^2/sigma^2 - D;
    the prior on W is N(0, 2^2): -W / 4 / N.
    """
    xs = jax.random.normal(KEY, (6, 3))
    size, count = 0.05, len(xs)
    _, state, update = start_of(
        xs,
        optimizer=optax.sgd(size),
        num_weight_updates=num_updates,
        log_prior=lambda p: -jnp.sum(p["w"] ** 2) / 8,
    )
    after, info = update(jax.random.key(3), state)
    zs = np.asarray(after.opt_state.chains, np.float64)
    assert np.any(zs != 0)
    p = jax.tree.map(partial(np.asarray, dtype=np.float64), PARAMS)
    data = np.asarray(xs, np.float64)
    for number in range(num_updates):
        residual = data - zs @ p["w"].T - p["b"]
        precision = np.exp(-2 * p["log_sigma"])
        gradient = {
            "w": precision * residual.T @ zs / count - p["w"] / 4 / count,
            "b": precision * residual.mean(axis=0),
            "log_sigma": precision * (residual**2).sum() / count - 3,
        }
        if not number:
            joint = -0.5 * (
                precision * (residual**2).sum(axis=1)
                + (zs**2).sum(axis=1)
                + 5 * np.log(2 * np.pi)
            )
            joint = joint.mean() - 3 * p["log_sigma"]
            prior = -(p["w"] ** 2).sum() / 8 / count
        p = {name: p[name] + size * gradient[name] for name in p}
    assert_close(after.params, p)
    assert float(info.aux["log_joint"]) == pytest.approx(joint, rel=1e-5)
    assert float(info.objective) == pytest.approx(joint + prior, rel=1e-5)


def test_em_climbs_with_exact_e_steps():
    """Chains that are set to exact draws, 1000 of each of 20 points; log p(x) is known.

    With such an E-step every iteration goes up, whatever M-step goes up its objective.
    """
    truth = model_of(PARAMS)
    keys = jax.random.split(KEY, 3)
    zs = jax.random.normal(keys[0], (20, 2))
    xs = jax.vmap(lambda key, z: truth.decode(z).sample(key))(
        jax.random.split(keys[1], 20), zs
    )
    many = jnp.repeat(xs, 1000, axis=0)
    params = {
        "w": jnp.array([[0.1, 0.2], [0.2, -0.1], [-0.2, 0.1]]),
        "b": jnp.zeros(3),
        "log_sigma": jnp.array(0.5),
    }
    # So short a leapfrog step leaves the chains where they are put.
    _, state, update = start_of(
        many, params=params, optimizer=optax.sgd(0.1), step_size=1e-9
    )

    @jax.jit
    def exact(params, key):
        draw = lambda key, x: model_of(params).posterior(x).sample(key)  # noqa: E731
        return jax.vmap(draw)(jax.random.split(key, len(many)), many)

    @jax.jit
    def log_likelihood(params):
        return jnp.mean(jax.vmap(model_of(params).log_likelihood)(xs))

    values = [float(log_likelihood(params))]
    for key in jax.random.split(keys[2], 12):
        drawn = exact(state.params, key)
        carried = state.opt_state._replace(chains=drawn)
        state, _ = update(key, state._replace(opt_state=carried))
        assert_close(state.opt_state.chains, drawn, atol=1e-4)
        values.append(float(log_likelihood(state.params)))
    assert np.all(np.diff(values) > 0), values
    assert values[-1] - values[0] > 0.3


def test_a_minibatch_moves_its_own_chains_alone():
    xs = jax.random.normal(KEY, (10, 3))
    algorithm, state, _ = start_of(xs)
    indices = jnp.array([7, 2, 5])
    after, _ = algorithm.update(KEY, state, xs[indices], indices=indices)
    moved = np.any(np.asarray(after.opt_state.chains != 0), axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), [2, 5, 7])
    assert int(after.step) == 1


@pytest.mark.parametrize("chunk_size", [1, 3, 10, 11])
def test_chains_moved_by_chunks_are_the_same_chains(chunk_size):
    xs = jax.random.normal(KEY, (10, 3))
    _, start, update = start_of(xs, optimizer=optax.sgd(0.1))
    _, _, by_chunks = start_of(xs, optimizer=optax.sgd(0.1), chunk_size=chunk_size)
    state, info = update(KEY, start)
    other, other_info = by_chunks(KEY, start)
    assert_close((other, other_info), (state, info), rtol=1e-5, atol=1e-6)


def test_a_chain_does_not_depend_on_where_its_datapoint_stands_in_memory():
    """The key is that of the place in the minibatch, the chain that of the index."""
    xs = jax.random.normal(KEY, (10, 3))
    algorithm, state, _ = start_of(xs)
    one, _ = algorithm.update(KEY, state, xs[:4], indices=jnp.arange(4))
    other, _ = algorithm.update(KEY, state, xs[:4], indices=jnp.arange(6, 10))
    assert_close(one.opt_state.chains[:4], other.opt_state.chains[6:], atol=0)


def test_without_indices_it_says_who_gives_them():
    xs = jnp.zeros((4, 3))
    algorithm, state, _ = start_of(xs)
    with pytest.raises(ValueError, match=r"chain of each datapoint.*aevb\.epoch does"):
        algorithm.update(KEY, state, xs)


def test_epochs_split_anywhere_are_the_same_bits():
    xs = jax.random.normal(KEY, (12, 3))
    algorithm, state, _ = start_of(xs, optimizer=optax.adagrad(0.1))
    epoch = jax.jit(partial(aevb.epoch, algorithm, batch_size=4))
    whole = state
    for _ in range(4):
        whole, _ = epoch(KEY, whole, xs)
    half = state
    for _ in range(2):
        half, _ = epoch(KEY, half, xs)
    half = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), half)  # saved
    for _ in range(2):
        half, _ = epoch(KEY, half, xs)
    assert_close(half, whole, rtol=0, atol=0)


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_devices_share_the_chains_of_a_minibatch(chunk_size):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    xs = jax.random.normal(KEY, (32, 3))
    options = {"optimizer": optax.sgd(0.05)}
    alone, state, _ = start_of(xs, **options)
    shared, _, _ = start_of(xs, axis_name="data", chunk_size=chunk_size, **options)

    def epoch(algorithm, axis_name=None):
        def run(state):
            state, info = aevb.epoch(
                algorithm, KEY, state, xs, batch_size=16, axis_name=axis_name
            )
            return state, (info.objective, info.aux)

        return run

    split = jax.shard_map(
        epoch(shared, "data"),
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
    )
    assert_close(jax.jit(split)(state), jax.jit(epoch(alone))(state))


def test_lanes_are_single_runs():
    xs = jax.random.normal(KEY, (12, 3))

    def run(key, learning_rate):
        algorithm, _state, _ = start_of(xs, optimizer=optax.sgd(learning_rate))
        return aevb.fit(algorithm, key, PARAMS, xs, num_epochs=2, batch_size=4)[0]

    keys, rates = jax.random.split(KEY, 2), jnp.array([0.01, 0.1])
    together = jax.jit(jax.vmap(run))(keys, rates)
    for lane in range(2):
        alone = jax.jit(run)(keys[lane], rates[lane])
        assert_close(jax.tree.map(lambda leaf: leaf[lane], together), alone)  # noqa: B023


def test_lowers_for_tpu_and_cuda():
    xs = jnp.zeros((8, 3))
    algorithm, state, _ = start_of(xs, optimizer=optax.adagrad(0.1))
    run = partial(aevb.epoch, algorithm, batch_size=4)
    exported = export.export(jax.jit(run), platforms=["tpu", "cuda"])(KEY, state, xs)
    assert "callback" not in exported.mlir_module()


def test_z_may_be_a_pytree_and_the_prior_may_learn():
    def decode_pair(params, z):
        loc = params["b"] + jnp.concatenate([z["u"], z["v"]])
        return aevb.DiagNormal(loc, jnp.zeros(3))

    def prior(params):
        return aevb.DiagNormal(params["loc"], {"u": 0.0, "v": 0.0})

    zero = {"u": jnp.zeros(1), "v": jnp.zeros(2)}
    params = {"b": jnp.zeros(3), "loc": zero}
    chains = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape)), zero)
    algorithm = baselines.mcem(decode_pair, optax.sgd(0.1), chains, prior=prior)
    xs = jnp.ones((4, 3))
    state, _ = algorithm.update(KEY, algorithm.init(params), xs, indices=jnp.arange(4))
    assert np.all(np.asarray(state.opt_state.chains["v"]) != 0)
    assert np.all(np.asarray(state.params["loc"]["v"]) != 0)
