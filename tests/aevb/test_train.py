from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import aevb
from aevb import testing

KEY = jax.random.key(0)
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")


def recorder(num_steps: int, batch_size: int) -> aevb.Algorithm:
    """Not a training algorithm: it writes down its keys and minibatches."""

    def init(params):
        batches = jnp.zeros((num_steps, batch_size), params)
        keys = jnp.zeros((num_steps, 2), jnp.uint32)
        return aevb.State(jnp.zeros((), jnp.int32), batches, keys)

    def update(key, state, batch, *, indices=None):
        batches = state.params.at[state.step].set(batch)
        keys = state.opt_state.at[state.step].set(jax.random.key_data(key))
        info = aevb.Info(jnp.mean(batch.astype(jnp.float32)), None, jnp.zeros(()))
        return aevb.State(state.step + 1, batches, keys), info

    return aevb.Algorithm(init, update)


@partial(jax.jit, static_argnames=("num_datapoints", "batch_size", "transform"))
def record(key, num_datapoints=24, batch_size=4, transform=None):
    """The minibatches `[epochs, steps, M]` and keys of 5 epochs over 0 .. N - 1."""
    num_epochs = 5
    num_steps = num_datapoints // batch_size
    state, _ = aevb.fit(
        recorder(num_steps * num_epochs, batch_size),
        key,
        jnp.uint32,
        jnp.arange(num_datapoints, dtype=jnp.uint32),
        num_epochs=num_epochs,
        batch_size=batch_size,
        transform=transform,
    )
    return state.params.reshape(num_epochs, num_steps, batch_size), state.opt_state


def noisy_regression(learning_rate=0.1, optimizer=optax.sgd):
    """Parameters that learn the mean of the data, with noise from the step's key."""

    def bound(params, key, x):
        noise = jax.random.normal(key, x.shape)
        value = -jnp.sum((x + 0.1 * noise - jnp.tanh(params["w"])) ** 2)
        return value, {"w": params["w"][0]}

    objective = aevb.map_objective(bound, num_datapoints=len(DATA))
    return aevb.gradient_algorithm(objective, optimizer(learning_rate))


DATA = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3)).astype(np.float32)
PARAMS = {"w": jnp.array([0.1, -0.3, 0.0])}
FIT = {"num_epochs": 3, "batch_size": 6}


@jax.jit
def run(key, learning_rate):
    algorithm = noisy_regression(learning_rate)
    return aevb.fit(algorithm, key, PARAMS, DATA, **FIT)


def assert_trees_close(tree, truth, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), tree, truth)


class TestOrder:
    """Which datapoints, in which order, with which noise."""

    def test_an_epoch_visits_every_datapoint_once(self):
        orders = np.asarray(record(KEY)[0]).reshape(5, 24)
        np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(24), (5, 1)))

    def test_every_epoch_and_every_run_has_an_order_of_its_own(self):
        orders = [record(jax.random.key(seed))[0] for seed in (0, 1)]
        assert len(np.unique(np.reshape(orders, (10, 24)), axis=0)) == 10

    def test_n_mod_m_datapoints_are_left_out_of_an_epoch(self):
        orders = np.asarray(record(KEY, 23, 5)[0]).reshape(5, 20)
        assert all(len(set(order)) == 20 for order in orders)
        assert len(np.unique(orders)) == 23  # others, the next time

    def test_every_step_has_a_key_of_its_own(self):
        _, keys = record(KEY)
        keys = np.concatenate([keys, jax.random.key_data(KEY)[None]])
        assert len(np.unique(keys, axis=0)) == 31

    def test_transform_has_a_key_of_its_own_for_every_datapoint_and_step(self):
        def transform(key, x):
            return jax.random.bits(key)

        bits, _ = record(KEY, transform=transform)
        assert len(np.unique(bits)) == bits.size == 120

    def test_transform_maps_each_datapoint(self):
        transformed, _ = record(KEY, transform=lambda key, x: x + 100)
        np.testing.assert_array_equal(transformed, 100 + np.asarray(record(KEY)[0]))

    def test_vmapped_runs_have_the_orders_and_keys_of_single_runs(self):
        """Bit for bit."""
        keys = jax.random.split(KEY, 3)
        batches, update_keys = jax.vmap(record)(keys)
        for lane, key in enumerate(keys):
            single = record(key)
            np.testing.assert_array_equal(batches[lane], single[0])
            np.testing.assert_array_equal(update_keys[lane], single[1])


class TestEpochsAndRuns:
    """What reduces to what."""

    def test_one_epoch_of_one_minibatch_is_one_gradient_step(self):
        def mean_bound(params):
            return jnp.mean(-((DATA - params["w"][None]) ** 2))

        objective = aevb.map_objective(
            lambda params, key, x: (-jnp.mean((x - params["w"]) ** 2), None),
            num_datapoints=len(DATA),
        )
        algorithm = aevb.gradient_algorithm(objective, optax.sgd(0.3))
        state, info = aevb.epoch(
            algorithm, KEY, algorithm.init(PARAMS), DATA, batch_size=len(DATA)
        )
        value, grads = jax.value_and_grad(mean_bound)(PARAMS)
        truth = jax.tree.map(lambda w, g: w + 0.3 * g, PARAMS, grads)
        assert state.step == 1
        assert_trees_close(state.params, truth, rtol=1e-6)
        np.testing.assert_allclose(info.objective, value, rtol=1e-6)
        np.testing.assert_allclose(
            info.grad_norm, np.linalg.norm(grads["w"]), rtol=1e-6
        )

    def test_fit_is_a_loop_of_epochs(self):
        """Bit for bit."""
        algorithm = noisy_regression(0.1, partial(optax.sgd, momentum=0.9))
        one_epoch = jax.jit(partial(aevb.epoch, algorithm, batch_size=6))
        state, infos = algorithm.init(PARAMS), []
        for _ in range(3):
            state, info = one_epoch(KEY, state, DATA)
            infos.append(info)
        fit = jax.jit(partial(aevb.fit, algorithm, **FIT))
        fitted, info = fit(KEY, PARAMS, DATA)
        jax.tree.map(np.testing.assert_array_equal, fitted, state)
        jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, b), info, *infos)

    def test_a_saved_state_goes_on_as_if_it_had_not_stopped(self):
        """Bit for bit, through the host's memory."""
        algorithm = noisy_regression(0.1, partial(optax.sgd, momentum=0.9))
        one_epoch = jax.jit(partial(aevb.epoch, algorithm, batch_size=6))
        state, _ = one_epoch(KEY, algorithm.init(PARAMS), DATA)
        uninterrupted, _ = one_epoch(KEY, state, DATA)
        resumed, _ = one_epoch(KEY, jax.device_get(state), DATA)
        jax.tree.map(np.testing.assert_array_equal, resumed, uninterrupted)

    def test_the_info_of_an_epoch_is_the_mean_of_its_updates(self):
        state, info = aevb.epoch(
            recorder(5, 4),
            KEY,
            recorder(5, 4).init(jnp.float32),
            jnp.arange(20.0),
            batch_size=4,
        )
        np.testing.assert_allclose(info.objective, np.mean(state.params), rtol=1e-6)

    def test_evaluation_has_one_key_and_leaves_the_run_alone(self):
        def evaluate(key, params):
            return jax.random.key_data(key), params

        algorithm = noisy_regression()
        fit = partial(aevb.fit, algorithm, KEY, PARAMS, DATA, **FIT)
        state, (info, (keys, params)) = jax.jit(partial(fit, evaluate=evaluate))()
        plain_state, plain_info = jax.jit(fit)()
        assert len(np.unique(keys, axis=0)) == 1
        assert keys.shape == (3, 2)
        last = jax.tree.map(lambda leaf: leaf[-1], params)
        jax.tree.map(np.testing.assert_array_equal, last, state.params)
        assert_trees_close((state, info), (plain_state, plain_info), rtol=1e-6)

    def test_data_may_be_a_numpy_array(self):
        assert isinstance(DATA, np.ndarray)
        fit = partial(aevb.fit, noisy_regression(), KEY, PARAMS, DATA, **FIT)
        state, _ = jax.eval_shape(fit)
        assert state.params["w"].shape == (3,)

    def test_a_state_is_arrays_alone(self):
        state = noisy_regression(0.1, optax.adam).init(PARAMS)
        for leaf in jax.tree.leaves(state):
            assert isinstance(leaf, jax.Array)
            assert not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


class TestOptimizers:
    """An objective goes up under any optax optimizer."""

    def test_the_objective_is_that_before_the_step(self):
        algorithm = noisy_regression(0.1)
        state = algorithm.init(PARAMS)
        objective = -np.mean(np.sum((DATA - np.tanh(PARAMS["w"])) ** 2, axis=1))
        _, info = algorithm.update(KEY, state, jnp.asarray(DATA))
        np.testing.assert_allclose(info.objective, objective, rtol=0.2)
        np.testing.assert_allclose(info.aux["w"], PARAMS["w"][0], rtol=1e-6)

    def test_a_line_search_gets_what_it_asks_for(self):
        objective = aevb.map_objective(
            lambda w, key, x: (-jnp.sum((x - w) ** 4), None), num_datapoints=1
        )
        algorithm = aevb.gradient_algorithm(objective, optax.lbfgs())
        update = jax.jit(algorithm.update)
        state, target = algorithm.init(jnp.zeros(3)), jnp.array([[1.0, -2.0, 3.0]])
        for _ in range(30):
            state, _ = update(KEY, state, target)
        np.testing.assert_allclose(state.params, target[0], atol=1e-2)


class TestTransformLaws:
    """A run is one traceable function of key and hyper-parameters."""

    keys = jax.random.split(KEY, 3)
    learning_rates = jnp.array([0.05, 0.2])

    def test_runs_over_seeds_and_step_sizes_are_the_single_runs(self):
        runs = jax.vmap(jax.vmap(run, (0, None)), (None, 0))
        states, infos = jax.jit(runs)(self.keys, self.learning_rates)
        assert infos.objective.shape == (2, 3, 3)
        for i, learning_rate in enumerate(self.learning_rates):
            for j, key in enumerate(self.keys):
                lane = jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], (states, infos))
                assert_trees_close(lane, run(key, learning_rate), rtol=1e-5, atol=1e-6)

    def test_jit_changes_rounding_only(self):
        eager = aevb.fit(noisy_regression(0.05), KEY, PARAMS, DATA, **FIT)
        assert_trees_close(run(KEY, 0.05), eager, rtol=1e-5, atol=1e-6)

    def test_nothing_retraces(self):
        traces = []

        def objective(params, key, batch):
            traces.append(None)
            return -jnp.mean((batch - params[None]) ** 2), None

        @jax.jit
        def one_epoch(key, learning_rate, state, data):
            algorithm = aevb.gradient_algorithm(objective, optax.sgd(learning_rate))
            return aevb.epoch(algorithm, key, state, data, batch_size=6)

        algorithm = aevb.gradient_algorithm(objective, optax.sgd(0.1))
        state = jax.jit(algorithm.init)(jnp.zeros(3))
        state, _ = one_epoch(KEY, 0.1, state, DATA)
        before = len(traces)
        for seed in range(3):
            state, _ = one_epoch(jax.random.key(seed), 0.1 * seed, state, DATA)
        assert len(traces) == before

    def test_runs_shard_over_devices_with_no_communication(self):
        keys = jax.random.split(KEY, 8)
        mesh = jax.make_mesh((8,), ("run",), axis_types=(AxisType.Auto,))
        sharded_keys = jax.device_put(keys, NamedSharding(mesh, PartitionSpec("run")))
        runs = jax.jit(jax.vmap(run, (0, None)))
        compiled = runs.lower(sharded_keys, 0.1).compile()
        assert not any(word in compiled.as_text() for word in COLLECTIVES)
        sharded = compiled(sharded_keys, 0.1)
        assert len(sharded[0].params["w"].sharding.device_set) == 8
        assert_trees_close(sharded, runs(keys, 0.1), rtol=1e-5, atol=1e-6)

    def test_data_on_eight_devices_is_data_on_one(self):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        data = np.resize(DATA, (24, 3))
        sharded = jax.device_put(data, NamedSharding(mesh, PartitionSpec("data")))
        fit = jax.jit(partial(aevb.fit, noisy_regression(), KEY, PARAMS, **FIT))
        assert_trees_close(fit(sharded), fit(data), rtol=1e-5, atol=1e-6)


def test_algorithm_1_reaches_the_maximum_likelihood(standard_promotion):
    """Of probabilistic PCA (Tipping and Bishop, 1999), in closed form.

    The bound attains it, for a W with orthogonal columns has a diagonal posterior. The
    steps shrink to zero; the stated error is 1e-3 of the -6.45 nats.
    """
    data_dim, latent_dim, num_datapoints = 5, 2, 200
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(num_datapoints, latent_dim))
    loadings = rng.normal(size=(latent_dim, data_dim))
    noise = 0.5 * rng.normal(size=(num_datapoints, data_dim))
    data = (factors @ loadings + noise + rng.normal(size=data_dim)).astype(np.float32)

    eigenvalues = np.linalg.eigvalsh(np.cov(data.T, bias=True))[::-1]
    log_det = np.sum(np.log(eigenvalues[:latent_dim]))
    log_det += (data_dim - latent_dim) * np.log(np.mean(eigenvalues[latent_dim:]))
    best = -0.5 * (data_dim * (np.log(2 * np.pi) + 1) + log_det)

    def encode(phi, x):
        return aevb.DiagNormal(phi["w"] @ x + phi["b"], phi["log_scale"])

    def decoder(theta):
        return testing.linear_gaussian(theta["w"], theta["b"], theta["log_scale"])

    def bound(params, key, x):
        decode = decoder(params["theta"]).decode
        return aevb.elbo(partial(encode, params["phi"]), decode, key, x).value, None

    shapes = {
        "phi": {"w": (2, 5), "b": (2,), "log_scale": (2,)},
        "theta": {"w": (5, 2), "b": (5,), "log_scale": ()},
    }
    params = jax.tree.map(
        lambda shape: jnp.asarray(0.1 * rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda shape: isinstance(shape, tuple),
    )

    @jax.jit
    def train(key):
        steps = optax.cosine_decay_schedule(0.03, 4000)
        objective = aevb.map_objective(bound, num_datapoints=num_datapoints)
        algorithm = aevb.gradient_algorithm(objective, optax.adam(steps))
        state, _ = aevb.fit(
            algorithm, key, params, data, num_epochs=1000, batch_size=50
        )
        log_p = jax.vmap(decoder(state.params["theta"]).log_likelihood)(data)
        keys = jax.random.split(key, (num_datapoints, 100))
        bounds = jax.vmap(jax.vmap(partial(bound, state.params), (0, None)))(keys, data)
        return jnp.mean(log_p), jnp.mean(bounds[0], axis=0)

    log_p, bounds = train(KEY)
    std_error = np.std(bounds) / np.sqrt(len(bounds))
    assert best - 1e-3 < log_p < best + 1e-5
    assert best - 1e-3 - 4.9 * std_error < np.mean(bounds) < best + 4.9 * std_error


class TestErrors:
    """Raised while tracing, with the mend."""

    @pytest.mark.parametrize("batch_size", [0, -1, 21])
    @pytest.mark.parametrize("name", ["epoch", "fit"])
    def test_batch_size_is_not_between_1_and_n(self, name, batch_size):
        algorithm = noisy_regression()
        calls = {
            "epoch": partial(aevb.epoch, algorithm, KEY, algorithm.init(PARAMS)),
            "fit": partial(aevb.fit, algorithm, KEY, PARAMS, num_epochs=1),
        }
        message = f"batch_size is {batch_size}, expected between 1 and .* 20"
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(partial(calls[name], batch_size=batch_size), DATA)


def counting() -> aevb.Algorithm:
    """Counts, in its state, how often it has seen each datapoint."""

    def init(counts):
        return aevb.State(jnp.zeros((), jnp.int32), jnp.zeros(()), counts)

    def update(key, state, batch, *, indices=None):
        counts = state.opt_state.at[indices].add(1)
        info = aevb.Info(jnp.mean(batch), None, jnp.zeros(()))
        return aevb.State(state.step + 1, state.params, counts), info

    return aevb.Algorithm(init, update)


class TestWhichDatapoints:
    data = jnp.arange(10.0)

    def epoch(self, key, counts):
        algorithm = counting()
        state = algorithm.init(counts)
        return aevb.epoch(algorithm, key, state, self.data, batch_size=3)[0].opt_state

    def test_an_update_knows_its_datapoints(self):
        counts = jax.jit(self.epoch)(jax.random.key(0), jnp.zeros(10, jnp.int32))
        assert sorted(counts.tolist()) == [0] + 9 * [1]

    def test_lanes_keep_state_of_each_datapoint_apart(self):
        keys = jax.random.split(jax.random.key(0), 4)
        counts = jax.vmap(self.epoch)(keys, jnp.zeros((4, 10), jnp.int32))
        for lane, key in enumerate(keys):
            alone = self.epoch(key, jnp.zeros(10, jnp.int32))
            np.testing.assert_array_equal(counts[lane], alone)
        assert len({tuple(row) for row in counts.tolist()}) > 1

    def test_blocks_of_updates_know_them_too(self):
        key, algorithm = jax.random.key(0), counting()
        order = aevb.epoch_batches(key, 0, 10, 3)
        state = algorithm.init(jnp.zeros(10, jnp.int32))
        for block in (order[:2], order[2:]):
            state, _ = aevb.scan_updates(
                algorithm, key, state, self.data[block], indices=block
            )
        whole = self.epoch(key, jnp.zeros(10, jnp.int32))
        np.testing.assert_array_equal(state.opt_state, whole)

    def test_each_device_knows_its_share(self):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        data = jnp.arange(20.0)

        def counts(key):
            algorithm = counting()
            state = algorithm.init(jnp.zeros(20, jnp.int32))
            # What a device counts, and so its state, differs from its neighbour's.
            state = jax.lax.pcast(state, "data", to="varying")
            options = {"batch_size": 16, "axis_name": "data"}
            state, _ = aevb.epoch(algorithm, key, state, data, **options)
            return state.opt_state[None]

        split = jax.shard_map(
            counts, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec("data")
        )
        found = np.asarray(jax.jit(split)(KEY))
        order = np.asarray(aevb.epoch_batches(KEY, 0, 20, 16))[0]
        for device, share in enumerate(order.reshape(8, 2)):
            np.testing.assert_array_equal(np.flatnonzero(found[device]), np.sort(share))
        assert found.sum() == 16


def test_an_epoch_does_not_start_in_the_middle_of_one():
    """Its order would begin again: datapoints twice, others not at all, in silence."""
    algorithm, key = counting(), jax.random.key(0)
    state = algorithm.init(jnp.zeros(10, jnp.int32))
    order = aevb.epoch_batches(key, 0, 10, 3)
    data = jnp.arange(10.0)
    state, _ = aevb.scan_updates(algorithm, key, state, data[order[:1]])
    with pytest.raises(ValueError, match=r"step 1, in the middle of an epoch of 3.*1:"):
        aevb.epoch(algorithm, key, state, data, batch_size=3)


@pytest.mark.parametrize("count", [2.5, True])
def test_counts_are_integers(count):
    objective = lambda w, key, batch: (-jnp.mean((w - batch) ** 2), None)  # noqa: E731
    algorithm = aevb.gradient_algorithm(objective, optax.sgd(0.5))
    data, key = jnp.arange(6.0), jax.random.key(0)
    options = {"num_epochs": 2, "batch_size": 2}
    for name in options:
        with pytest.raises(ValueError, match=f"{name} is {count}"):
            aevb.fit(algorithm, key, jnp.zeros(()), data, **options | {name: count})
    with pytest.raises(ValueError, match=f"num_datapoints is {count}"):
        aevb.dataset_bound(jnp.zeros(2), count)
    with pytest.raises(ValueError, match=f"num_datapoints is {count}"):
        aevb.map_objective(lambda *_: None, num_datapoints=count)
