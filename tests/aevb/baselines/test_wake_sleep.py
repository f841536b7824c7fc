"""Wake-sleep against hand-derived gradients on the linear-Gaussian model."""

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
X = jnp.array([0.5, -1.0, 2.0])
PARAMS = {
    "encoder": {
        "a": jnp.array([[0.3, -0.2, 0.1], [0.2, 0.4, -0.1]]),
        "c": jnp.array([0.1, -0.3]),
        "log_s": jnp.array([-0.4, 0.2]),
    },
    "decoder": {
        "w": jnp.array([[1.0, 0.8], [-0.3, 0.4], [0.7, 0.6]]),
        "b": jnp.array([0.2, -0.1, 0.4]),
        "log_sigma": jnp.array(-0.3),
    },
}


def matmul(a, b):
    return jnp.matmul(a, b, precision="highest")


def encode(params, x):
    p = params["encoder"]
    return aevb.DiagNormal(matmul(p["a"], x) + p["c"], p["log_s"])


def decode(params, z):
    p = params["decoder"]
    loc = matmul(p["w"], z) + p["b"]
    return aevb.DiagNormal(loc, jnp.broadcast_to(p["log_sigma"], loc.shape))


MODEL = aevb.Model(lambda key, x: PARAMS, encode, decode)


def step(params, key, x, **options):
    pair = partial(encode, params), partial(decode, params)
    return baselines.wake_sleep_step(*pair, key, x, **options)


def gradient(name, key, x, **options):
    return jax.grad(lambda p: getattr(step(p, key, x, **options), name))(PARAMS)


def assert_close(tree, truth, **tolerance):
    tolerance = tolerance or {"rtol": 2e-5, "atol": 1e-5}
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), tree, truth)


def zeros_of(tree):
    return jax.tree.map(jnp.zeros_like, tree)


@pytest.mark.parametrize("seed", range(3))
def test_the_wake_gradient_by_hand(seed):
    """Of log p(x|z) + log p(z): (x - Wz - b) / sigma^2 and its products; no encoder."""
    key = jax.random.key(seed)
    z = np.asarray(encode(PARAMS, X).sample(jax.random.fold_in(key, 0)), np.float64)
    p = jax.tree.map(partial(np.asarray, dtype=np.float64), PARAMS["decoder"])
    residual = np.asarray(X, np.float64) - p["w"] @ z - p["b"]
    precision = np.exp(-2 * p["log_sigma"])
    found = gradient("wake", key, X)
    truth = {
        "w": precision * np.outer(residual, z),
        "b": precision * residual,
        "log_sigma": precision * residual @ residual - 3,
    }
    assert_close(found["decoder"], truth)
    assert_close(found["encoder"], zeros_of(PARAMS["encoder"]), atol=0)
    log_2pi = np.log(2 * np.pi)
    value = -0.5 * (precision * residual @ residual + z @ z + 5 * log_2pi)
    wake = float(step(PARAMS, key, X).wake)
    assert wake == pytest.approx(value - 3 * p["log_sigma"], rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_sleep_gradient_by_hand(seed):
    """Of log q(z|x) at a dream: (z - Ax - c) / s^2 and its products; no decoder."""
    key, seen = jax.random.key(seed), {}

    def watched(params, z):
        seen["z"] = np.asarray(z, np.float64)
        return decode(params, z)

    def dream(key, likelihood):
        x = baselines.sample_dream(key, likelihood)
        seen["x"] = np.asarray(x, np.float64)
        return x

    pair = partial(encode, PARAMS), partial(watched, PARAMS)
    value = baselines.sleep_phase(*pair, key, jnp.zeros(2), dream=dream)
    found = gradient("sleep", key, X)
    p = jax.tree.map(partial(np.asarray, dtype=np.float64), PARAMS["encoder"])
    residual = seen["z"] - p["a"] @ seen["x"] - p["c"]
    scaled = residual * np.exp(-2 * p["log_s"])
    truth = {
        "a": np.outer(scaled, seen["x"]),
        "c": scaled,
        "log_s": residual * scaled - 1,
    }
    assert_close(found["encoder"], truth)
    assert_close(found["decoder"], zeros_of(PARAMS["decoder"]), atol=0)
    truth = -0.5 * residual @ scaled - p["log_s"].sum() - np.log(2 * np.pi)
    assert float(value) == pytest.approx(truth, rel=1e-5)


def test_a_dream_is_a_draw_of_the_model(z_score):
    """x ~ N(b, W W' + sigma^2 I), z with it: Cov(z, x) = W'."""
    seen = []

    def one(key):
        def dream(key, likelihood):
            x = baselines.sample_dream(key, likelihood)
            seen.append(x)
            return x

        def watched(z):
            seen.append(z)
            return decode(PARAMS, z)

        seen.clear()
        baselines.sleep_phase(
            partial(encode, PARAMS), watched, key, jnp.zeros(2), dream=dream
        )
        return tuple(seen)

    zs, xs = jax.vmap(one)(jax.random.split(KEY, 20_000))
    p = PARAMS["decoder"]
    centred = xs - p["b"][None]
    spread = p["w"] @ p["w"].T + jnp.exp(2 * p["log_sigma"]) * jnp.eye(3)
    assert np.all(np.abs(z_score(xs, p["b"])) < 4.9)
    outer = jax.vmap(jnp.outer)
    assert np.all(np.abs(z_score(outer(centred, centred), spread)) < 4.9)
    assert np.all(np.abs(z_score(outer(zs, centred), p["w"].T)) < 4.9)


def expected_sleep(params):
    """E log q(z|x) over dreams, in closed form, up to a constant."""
    q, p = params["encoder"], jax.lax.stop_gradient(params["decoder"])
    mixed = jnp.eye(2) - matmul(q["a"], p["w"])
    shift = matmul(q["a"], p["b"]) + q["c"]
    squares = (
        jnp.sum(mixed**2, axis=1)
        + jnp.exp(2 * p["log_sigma"]) * jnp.sum(q["a"] ** 2, axis=1)
        + shift**2
    )
    return jnp.sum(-0.5 * squares * jnp.exp(-2 * q["log_s"]) - q["log_s"])


def test_the_sleep_gradient_is_unbiased(z_score):
    keys = jax.random.split(KEY, 20_000)
    found = jax.vmap(lambda key: gradient("sleep", key, X)["encoder"])(keys)
    truth = jax.grad(expected_sleep)(PARAMS)["encoder"]
    for name, leaf in found.items():
        assert np.all(np.abs(z_score(leaf, truth[name])) < 4.9), name


@pytest.mark.parametrize("seed", range(3))
def test_the_decoder_s_wake_gradient_is_the_bound_s(seed):
    """With the same draw: the KL of eq. 7 does not depend on the decoder."""
    key = jax.random.key(seed)

    def bound(params):
        pair = partial(encode, params), partial(decode, params)
        return aevb.elbo(*pair, key, X).value

    truth = jax.grad(bound)(PARAMS)
    found = gradient("wake", key, X)
    assert_close(found["decoder"], truth["decoder"])
    assert not np.allclose(truth["encoder"]["a"], 0, atol=1e-3)
    bounds = step(PARAMS, key, X).bound
    assert float(bounds.value) == pytest.approx(float(bound(PARAMS)), rel=1e-6)


def test_the_fixed_point_is_not_the_bound_s():
    """Where the posterior has correlations, which q has not.

    Sleep fits the marginal variances of p(z|x); the bound fits the conditional ones,
    which are smaller. Each encoder is a fixed point of its own objective alone.
    """
    p = PARAMS["decoder"]
    model = testing.linear_gaussian(p["w"], p["b"], p["log_sigma"])
    covariance = matmul(model.posterior(X).scale_tril, model.posterior(X).scale_tril.T)
    a = matmul(covariance, p["w"].T) * jnp.exp(-2 * p["log_sigma"])
    exact_mean = {"a": a, "c": -matmul(a, p["b"])}
    of_sleep = exact_mean | {"log_s": 0.5 * jnp.log(jnp.diagonal(covariance))}
    of_bound = exact_mean | {"log_s": model.best_encode(X).log_scale}

    def sleep(encoder):
        return expected_sleep({"encoder": encoder, "decoder": p})

    def bound(encoder):  # exact: a linear decoder's E_q log p(x|z)
        q = encode({"encoder": encoder}, X)
        mean = decode(PARAMS, q.loc).log_prob(X)
        spread = matmul(p["w"] ** 2, jnp.exp(2 * q.log_scale))
        mean -= 0.5 * jnp.exp(-2 * p["log_sigma"]) * jnp.sum(spread)
        normal = aevb.DiagNormal(jnp.zeros(2), jnp.zeros(2))
        return mean - aevb.kl_divergence(q, normal)

    for objective, own, other in (
        (sleep, of_sleep, of_bound),
        (bound, of_bound, of_sleep),
    ):
        at_own = optax.tree.norm(jax.grad(objective)(own))
        at_other = optax.tree.norm(jax.grad(objective)(other))
        assert float(at_own) < 1e-4 < 0.1 < float(at_other)
    assert np.all(of_sleep["log_s"] > of_bound["log_s"] + 0.01)
    gap = bound(of_bound) - bound(of_sleep)
    assert float(gap) > 0.01  # nats that sleep gives away


def test_training_ends_at_sleep_s_fixed_point():
    """The algorithm itself, from the bound's, with the decoder held."""
    p = PARAMS["decoder"]
    model = testing.linear_gaussian(p["w"], p["b"], p["log_sigma"])
    lower = model.posterior(X).scale_tril
    covariance = matmul(lower, lower.T)
    a = matmul(covariance, p["w"].T) * jnp.exp(-2 * p["log_sigma"])
    log_s = model.best_encode(X).log_scale
    start = {
        "encoder": {"a": a, "c": -matmul(a, p["b"]), "log_s": log_s},
        "decoder": p,
    }
    optimizer = optax.multi_transform(
        {"encoder": optax.sgd(0.1), "decoder": optax.set_to_zero()},
        {"encoder": "encoder", "decoder": "decoder"},
    )
    algorithm = baselines.wake_sleep(MODEL, optimizer, num_datapoints=1000)
    data = jnp.zeros((1000, 3))  # sleep does not look at them

    def one(state, key):
        state, _ = algorithm.update(key, state, data)
        return state, state.params["encoder"]["log_s"]

    _, path = jax.jit(lambda s, keys: jax.lax.scan(one, s, keys))(
        algorithm.init(start), jax.random.split(KEY, 400)
    )
    found = np.asarray(path[200:]).mean(axis=0)
    truth = 0.5 * np.log(np.diagonal(covariance))
    np.testing.assert_allclose(found, truth, atol=0.01)
    assert np.all(np.abs(np.asarray(log_s) - truth) > 0.03)


class TestAlgorithm:
    """Minibatches, the prior on the weights, lanes and devices."""

    BATCH = jax.random.normal(jax.random.key(1), (8, 3))

    def updated(self, key=KEY, batch=BATCH, **options):
        options = {"num_datapoints": 80} | options
        algorithm = baselines.wake_sleep(MODEL, optax.sgd(1.0), **options)
        return algorithm.update(key, algorithm.init(PARAMS), batch)

    def test_an_update_is_the_mean_gradient(self):
        state, info = self.updated()

        def value(params):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(8))
            return jnp.mean(jax.vmap(partial(step, params))(keys, self.BATCH).value)

        truth = jax.tree.map(jnp.add, PARAMS, jax.grad(value)(PARAMS))
        assert_close(state.params, truth)
        names = ["bound", "kl", "reconstruction", "sleep", "wake"]
        assert sorted(info.aux) == names
        total = float(info.aux["wake"] + info.aux["sleep"])
        assert float(info.objective) == pytest.approx(total, rel=1e-6)

    def test_the_prior_acts_on_both_phases(self):
        """MAP: its gradient over N is added, in encoder and decoder."""
        log_prior = partial(aevb.log_weight_prior, scale=0.5)
        plain, _ = self.updated()
        with_prior, _ = self.updated(log_prior=log_prior)
        found = jax.tree.map(jnp.subtract, with_prior.params, plain.params)
        truth = jax.tree.map(lambda g: g / 80, jax.grad(log_prior)(PARAMS))
        assert_close(found, truth, atol=1e-6)
        assert np.any(truth["encoder"]["a"])
        assert np.any(truth["decoder"]["w"])

    def test_lanes_are_single_runs(self):
        keys = jax.random.split(KEY, 3)
        run = lambda key: self.updated(key)[0].params  # noqa: E731
        together = jax.jit(jax.vmap(run))(keys)
        for lane, key in enumerate(keys):
            alone = jax.jit(run)(key)
            assert_close(jax.tree.map(lambda leaf: leaf[lane], together), alone)  # noqa: B023

    def test_devices_share_a_minibatch(self):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

        def update(batch):
            state, info = self.updated(batch=batch, axis_name="data")
            return state.params, info.objective

        split = jax.shard_map(
            update, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec()
        )
        state, info = self.updated()
        assert_close(jax.jit(split)(self.BATCH), (state.params, info.objective))

    def test_lowers_for_tpu_and_cuda(self):
        exported = export.export(
            jax.jit(lambda batch: self.updated(batch=batch)), platforms=["tpu", "cuda"]
        )(self.BATCH)
        assert "callback" not in exported.mlir_module()


def test_a_prior_with_parameters_learns_awake_alone():
    def prior(params):
        return aevb.DiagNormal(params, jnp.zeros(2))

    def value(params, name):
        return getattr(step(PARAMS, KEY, X, prior=prior(params)), name)

    loc = jnp.array([0.3, -0.2])
    z = encode(PARAMS, X).sample(jax.random.fold_in(KEY, 0))
    assert_close(jax.grad(value)(loc, "wake"), z - loc)
    assert_close(jax.grad(value)(loc, "sleep"), jnp.zeros(2), atol=0)


def test_a_posterior_without_a_closed_kl_has_the_bound_of_eq_6():
    """Full covariance: log q at the draw takes the place of the KL."""
    model = testing.linear_gaussian(
        PARAMS["decoder"]["w"], PARAMS["decoder"]["b"], PARAMS["decoder"]["log_sigma"]
    )

    def none(q, p):
        raise TypeError

    _, bound = baselines.wake_phase(model.posterior, model.decode, KEY, X, kl=none)
    # Of the exact posterior, every draw's bound is log p(x).
    assert float(bound.value) == pytest.approx(float(model.log_likelihood(X)), rel=1e-5)


def test_z_may_be_a_pytree():
    def encode_pair(x):
        return aevb.DiagNormal({"u": x[:1], "v": x[1:]}, {"u": -1.0, "v": -1.0})

    def decode_pair(z):
        return aevb.DiagNormal(jnp.concatenate([z["u"], z["v"]]), jnp.zeros(3))

    found = baselines.wake_sleep_step(encode_pair, decode_pair, KEY, X)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(found))


def test_a_likelihood_that_cannot_sample_is_told():
    class Mute:
        def log_prob(self, x):
            return jnp.zeros(())

    with pytest.raises(TypeError, match=r"Mute, which has no sample\(key\).*dream="):
        baselines.sleep_phase(
            partial(encode, PARAMS), lambda z: Mute(), KEY, jnp.zeros(2)
        )
    pair = partial(encode, PARAMS), lambda z: Mute()
    dreamt = baselines.sleep_phase(*pair, KEY, jnp.zeros(2), dream=lambda key, p: X)
    assert np.isfinite(dreamt)
