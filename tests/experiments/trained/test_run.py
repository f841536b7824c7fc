"""A run from Python: the report's numbers, whatever became of its folder."""

import json
import re
import shutil
from functools import partial

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small

import aevb
from experiments import data, mnist, program, trained
from experiments.errors import CheckpointError, ConfigError, WorkdirError
from experiments.processes.interruption import StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.workdir import held
from experiments.sweeps import grid
from experiments.sweeps import runner as sweeps
from experiments.trained import TrainedRun, open_run
from experiments.training.opened import Opened

# optax.adam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("standard_promotion", "cache")

KEY = jax.random.key(0)
SEEN = np.arange(784).reshape(28, 28) < 392


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, cache):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        mnist.run(small(epochs=3, **{"checkpoint.every": 1}), workdir)
    return workdir


@pytest.fixture(scope="module")
def run(workdir):
    return open_run(workdir)


@pytest.fixture(scope="module")
def dataset():
    return data.load(num_train=320, num_valid=100, num_test=40)


def untrained(dataset, **changes):
    """A run of another kind, with the weights that it would start with."""
    config = small(**changes)
    built = program.build(config, dataset)
    params = built.init(jax.random.key(1))
    return TrainedRun("nowhere", Opened(config, dataset, built, params, 0))


def reported(workdir):
    """log p(x) by index, as the report has it."""
    lines = (workdir / "evaluation" / "log_likelihood.jsonl").read_text().splitlines()
    parts = [json.loads(line) for line in lines if line]
    return {int(part["name"]): part["value"]["log_likelihood"] for part in parts}


def test_the_numbers_are_those_of_the_report(run, workdir):
    expected = reported(workdir)
    found = run.log_likelihood(run.test.xs[[*expected]], indices=[*expected])
    np.testing.assert_array_equal(found.log_likelihood, [*expected.values()])
    bound = run.bound(run.test.xs)
    mean = np.mean(bound.bound, dtype=np.float64)
    np.testing.assert_allclose(mean, run.results["test_bound"], rtol=1e-6)
    kl = np.mean(bound.kl, dtype=np.float64)
    np.testing.assert_allclose(kl, run.results["test_kl"], rtol=1e-6)
    np.testing.assert_allclose(bound.bound, bound.reconstruction - bound.kl, rtol=1e-5)
    assert run.metrics[-1]["epoch"] == 3
    assert run.config.latent_dim == run.latent_dim == 2


def test_rows_have_their_own_noise_whichever_others_there_are(run):
    some = [7, 3]
    whole, found = run.bound(run.test.xs), run.bound(run.test.xs[some], indices=some)
    np.testing.assert_allclose(found.bound, whole.bound[some], rtol=1e-6)
    draws = run.encode(run.test.xs[:9], num_draws=2, key=KEY).draws[some]
    found = run.encode(run.test.xs[some], num_draws=2, key=KEY, indices=some)
    np.testing.assert_allclose(found.draws, draws, rtol=1e-5)
    x = run.test.xs[:1]
    assert run.log_likelihood(x, seed=1)[0] != run.log_likelihood(x)[0]


def test_codes_and_pixels_are_those_of_the_model(run):
    xs = run.test.xs[:5]
    codes = run.encode(xs, num_draws=2000, key=KEY)
    model = run._program.model
    encode = jax.jit(jax.vmap(partial(model.encode, run.params)))
    q = encode(jnp.asarray(xs.reshape(5, -1)))
    np.testing.assert_allclose(codes.mean, q.loc, rtol=1e-5)
    np.testing.assert_allclose(codes.std, np.exp(q.log_scale), rtol=1e-5)
    score = (codes.draws.mean(1) - codes.mean) / codes.std * 2000**0.5
    assert np.all(np.abs(score) < 4.9)
    assert codes.draws.shape == (5, 2000, 2)
    pixels = run.decode(codes.mean)
    decode = jax.jit(jax.vmap(partial(model.decode, run.params)))
    expected = decode(q.loc).mean.reshape(5, 28, 28)
    np.testing.assert_allclose(pixels.mean, expected, rtol=1e-5)
    variance = expected * (1 - expected)
    np.testing.assert_allclose(pixels.std, np.sqrt(variance), rtol=1e-4)
    np.testing.assert_array_equal(run.reconstruct(xs).mean, pixels.mean)


def test_samples_are_of_the_prior_and_its_pixels(run):
    found = run.sample(KEY, 2000)
    assert np.all(np.abs(found.zs.mean(0)) < 4.9 / 2000**0.5)
    np.testing.assert_allclose(found.mean, run.decode(found.zs).mean, rtol=1e-5)
    assert set(np.unique(found.xs)) == {0.0, 1.0}
    excess = np.sum(found.xs - found.mean, axis=(1, 2))
    spread = np.sqrt(np.sum(found.mean * (1 - found.mean), axis=(1, 2)))
    assert abs(np.mean(excess / spread)) < 4.9 / 2000**0.5
    np.testing.assert_array_equal(run.sample(KEY, 3).zs, found.zs[:3])


def test_what_is_seen_is_kept_and_draws_have_the_mean(run):
    xs = run.test.xs[:2]
    found = run.impute(xs, SEEN, key=KEY, method="sir", num_steps=64)
    assert found.draws.shape == (2, 100, 28, 28)
    np.testing.assert_array_equal(found.mean[:, SEEN], xs[:, SEEN])
    draws = found.draws[:, :, SEEN]
    np.testing.assert_array_equal(
        draws, np.broadcast_to(xs[:, None, SEEN], draws.shape)
    )
    assert found.diagnostics.keys() == {"ess", "pareto_k"}
    # What is missing is not looked at.
    hidden = np.where(SEEN, xs, np.nan)
    again = run.impute(hidden, SEEN, key=KEY, method="sir", num_steps=64)
    np.testing.assert_array_equal(again.mean, found.mean)
    # The mask of each image is its own.
    masks = np.stack([SEEN, ~SEEN])
    each = run.impute(xs, masks, key=KEY, method="sir", num_steps=64)
    np.testing.assert_array_equal(each.mean[0], found.mean[0])
    np.testing.assert_array_equal(each.mean[1][~SEEN], xs[1][~SEEN])


def test_a_channel_of_ones_own_is_undone(run):
    xs = run.test.xs[:2]
    found = run.restore(xs, aevb.flipped(0.01), key=KEY, method="sir", num_steps=64)
    # A pixel is flipped in a hundredth of cases: most are believed.
    assert np.mean((found.mean > 0.5) == (xs > 0.5)) > 0.9
    assert np.all((found.mean >= 0) & (found.mean <= 1))


def test_other_numbers_of_images_compile_nothing(run):
    calls = {
        "encode": lambda n: run.encode(run.test.xs[:n]),
        "decode": lambda n: run.decode(np.zeros((n, 2))),
        "sample": lambda n: run.sample(KEY, n),
        "bound": lambda n: run.bound(run.test.xs[:n]),
        "log_likelihood": lambda n: run.log_likelihood(run.test.xs[:n]),
        "impute": lambda n: run.impute(
            run.test.xs[:n], SEEN, key=KEY, method="sir", num_steps=64
        ),
    }
    compiled = []

    def count(name, _, **__):
        if name.endswith("backend_compile_duration"):
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        for name, call in calls.items():
            call(3)
            compiled.clear()
            call(5)
            assert not compiled, name
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def test_a_moved_run_an_interrupted_one_and_one_at_an_earlier_step(
    run, workdir, tmp_path
):
    moved = shutil.move(shutil.copytree(workdir, tmp_path / "copy"), tmp_path / "there")
    (moved / "results.json").unlink()  # as if it had been stopped
    last, first = open_run(str(moved)), open_run(moved, step=10)
    assert last.results == {}
    expected = run.encode(run.test.xs[:4]).mean
    np.testing.assert_array_equal(last.encode(run.test.xs[:4]).mean, expected)
    assert (first.step, last.step) == (10, 30)
    assert not np.array_equal(first.encode(run.test.xs[:4]).mean, expected)
    assert open_run(moved, step="best").step in Checkpoints(moved).steps()


def test_a_damaged_run_is_refused_with_the_mend(workdir, tmp_path):
    damaged = shutil.copytree(workdir, tmp_path / "damaged")
    for file in (damaged / "checkpoints").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    with pytest.raises(CheckpointError, match="checkpoint"):
        open_run(damaged)
    (damaged / "config.json").write_text("{")
    with pytest.raises(WorkdirError, match=r"config.json is damaged"):
        open_run(damaged)
    with pytest.raises(WorkdirError, match=r"holds no run.*--workdir"):
        open_run(tmp_path)


def test_a_run_of_a_sweep(tmp_path):
    folder = tmp_path / "sweep"
    runs = grid.expand(small(epochs=1), [{"seed": 0}, {"seed": 1}])
    asked = sweeps.Sweep(runs, ["seed"], 2, 1, str(folder))
    with held(folder), StopRequest() as stop:
        rows = sweeps.train(asked, folder, stop)
    with pytest.raises(WorkdirError, match=re.escape(f"give {folder / 'runs'}/NAME")):
        open_run(folder)
    one = open_run(folder / "runs" / runs[1].name)
    bound = one.bound(one.test.xs).bound
    np.testing.assert_allclose(np.mean(bound), rows[1]["test_bound"], rtol=1e-5)


def test_grey_pixels_with_a_density(dataset):
    run = untrained(
        dataset,
        likelihood="gaussian",
        output_bias_from_data=False,
        **{"data.binarization": "grey"},
    )
    images = dataset.test.images[:3].reshape(3, 28, 28)
    pixels = run.reconstruct(images)
    assert pixels.std.shape == (3, 28, 28)
    assert np.all(pixels.std > 0)
    assert np.all(np.isfinite(run.log_likelihood(images).log_likelihood))
    noisy = images / 255.0 + 0.3
    found = run.restore(noisy, aevb.noisy(0.3), key=KEY, method="sir", num_steps=8)
    assert found.mean.shape == images.shape


@pytest.mark.parametrize("posterior", ["gamma", "kumaraswamy"])
def test_a_family_has_the_deviation_of_its_draws(dataset, posterior):
    run = untrained(dataset, posterior=posterior, estimator="sgvb_a")
    codes = run.encode(run.test.xs[:4], num_draws=200, key=KEY)
    np.testing.assert_allclose(codes.std, codes.draws.std(axis=1), rtol=0.4)
    assert np.all(run.sample(KEY, 5).zs > 0)


def test_without_an_encoder_there_are_samples_alone(dataset):
    run = untrained(dataset, algorithm="mcem")
    assert run.sample(KEY, 3).xs.shape == (3, 28, 28)
    assert run.decode(np.zeros((2, 2))).mean.shape == (2, 28, 28)
    for call in (run.encode, run.reconstruct, run.bound, run.log_likelihood):
        with pytest.raises(ConfigError, match=r"has no encoder.*--config.algorithm"):
            call(run.test.xs[:1])


def test_a_posterior_over_weights_is_not_for_imputation(dataset):
    run = untrained(dataset, weights="posterior", weight_prior=1.0)
    assert np.isfinite(run.log_likelihood(run.test.xs[:1]).log_likelihood)
    with pytest.raises(ConfigError, match=r"--config.weights=point"):
        run.impute(run.test.xs[:1], SEEN, key=KEY)


def test_grey_pixels_under_a_bernoulli_have_no_likelihood(dataset):
    run = untrained(dataset, **{"data.binarization": "grey"})
    grey = dataset.test.images[:2]
    assert np.all(np.isfinite(run.bound(grey).bound))
    with pytest.raises(ConfigError, match="is no likelihood"):
        run.log_likelihood(grey)


X = np.zeros((1, 28, 28), np.float32)
BYTES = np.full((1, 28, 28), 200, np.uint8)
BAD = {
    "one image": (
        lambda run: run.encode(X[0]),
        r"shape \(28, 28\).*give one.*x\[None\]",
    ),
    "none": (lambda run: run.encode(X[:0]), "with n > 0"),
    "others": (lambda run: run.encode(np.zeros((2, 14, 14))), r"\[n, 784\]"),
    "bytes": (lambda run: run.encode(np.float32(BYTES)), "divide grey levels by 255"),
    "NaN": (lambda run: run.encode(X * np.nan), "use impute"),
    "integers": (lambda run: run.encode(X.astype(int)), "xs is int64, expected"),
    "binary bytes": (lambda run: run.encode(BYTES // 200), r"xs.astype\(bool\)"),
    "no key": (lambda run: run.encode(X, num_draws=2), r"key=jax.random.key\(0\)"),
    "grey": (lambda run: run.log_likelihood(BYTES), r"run.binarize\(key, images\)"),
    "grey bound": (lambda run: run.bound(BYTES), "grey pixels, expected 0 and 1"),
    "not bytes": (lambda run: run.binarize(KEY, X), "expected uint8 from 0 to 255"),
    "indices": (lambda run: run.bound(X, indices=[1, 2]), "expected 1 whole numbers"),
    "what indices": (lambda run: run.bound(X, indices=[0.5]), "whole numbers of 0 or"),
    "one code": (lambda run: run.decode(np.zeros(2)), r"z\[None\]"),
    "codes": (lambda run: run.decode(np.zeros((3, 5))), r"expected \[n, 2\]"),
    "infinite": (lambda run: run.decode(np.full((1, 2), np.inf)), "not finite"),
    "number": (lambda run: run.sample(KEY, 0), "num is 0, expected 1 or more"),
    "mask": (lambda run: run.impute(X, SEEN[:2], key=KEY), "True where a pixel"),
    "no bools": (lambda run: run.impute(X, SEEN * 1.0, key=KEY), "expected bools"),
    "all seen": (lambda run: run.impute(X, SEEN | True, key=KEY), "leave that image"),
    "method": (
        lambda run: run.impute(X, SEEN, key=KEY, method="magic"),
        f"'magic', expected one of {', '.join(trained.RESTORERS)}",
    ),
    "steps": (lambda run: run.impute(X, SEEN, key=KEY, num_steps=9), "power of two"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_with_the_mend(run, name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call(run)


def test_binary_pixels_are_drawn_with_their_grey_levels(run):
    levels = np.repeat(np.uint8([0, 51, 255]), 500)[:, None, None]
    images = np.broadcast_to(levels, (1500, 28, 28)).astype(np.uint8)
    drawn = run.binarize(KEY, images)
    assert drawn[:500].max() == 0
    assert drawn[1000:].mean() > 1 - 1e-4  # of sixteen bits
    share = drawn[500:1000].mean()
    assert abs(share - 0.2) < 4.9 * (0.16 / (500 * 784)) ** 0.5
