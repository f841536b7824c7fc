"""A posterior over the weights, from the configuration to the predictive log p(x)."""

import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import measured, small
from jax import export

import aevb
from experiments import data, mnist, program
from experiments.evaluation.bounds import bound_evaluator
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.storage.atomic import read_json
from experiments.storage.checkpoints import Checkpoints
from experiments.sweeps import grid, lanes
from experiments.training import epochs
from experiments.training.opened import load_run

# optax.adam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("standard_promotion", "cache")


def configure(**changes):
    fields = {"weights": "posterior", "weight_prior": 1.0, "epochs": 3}
    return small(**{**fields, "checkpoint.every": 1, **changes})


def built(config):
    dataset = data.load(num_train=320, num_valid=100, num_test=40)
    return program.build(config, dataset)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    workdir = tmp_path_factory.mktemp("weights") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        mnist.run(configure(), workdir)
    return workdir


def outcome(workdir):
    checkpoints = Checkpoints(workdir)
    results = read_json(workdir / "results.json")
    del results["timings"]
    leaves = checkpoints.verify(checkpoints.steps()[-1]).record["leaves"]
    return leaves, results, (workdir / "metrics.jsonl").read_text()


def test_a_run_that_goes_on_ends_with_the_same_bits(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    for step in Checkpoints(workdir).steps()[1:]:
        shutil.rmtree(workdir / "checkpoints" / str(step))
        (workdir / "checkpoints" / f"{step}.sha256").unlink()
    (workdir / "results.json").unlink()
    shutil.rmtree(workdir / "evaluation")
    mnist.run(configure(), workdir)
    assert outcome(workdir) == outcome(finished)


def test_the_report_has_the_evidence(finished):
    _, results, metrics = outcome(finished)
    assert results["evidence_bound"] < 320 * results["test_bound"]
    assert results["weights_kl"] > 0
    assert "train/weights_kl" in metrics
    assert "evidence bound" in (finished / "report.html").read_text()


def test_predictive_log_likelihoods_are_estimated_by_the_same_command(
    finished, tmp_path
):
    workdir = shutil.copytree(finished, tmp_path / "run")
    names = measured(workdir)
    # The latent has the noise of the weights: too many numbers for a grid.
    assert names == {"importance-300", "annealed-30", "sandwich-30"}


def test_annealing_over_weights_and_z_is_importance_sampling_over_both(finished):
    opened = load_run(finished)
    model = opened.program.likelihood_model
    xs = jnp.asarray(opened.program.test[:2], jnp.float32)

    @jax.jit
    def estimates(params, key, x):
        arguments = partial(model.encode, params), partial(model.decode, params), key, x
        prior = model.prior(params)
        sampled = aevb.importance_log_likelihood(
            *arguments, prior=prior, num_samples=8000, chunk_size=1000
        )
        annealed = aevb.annealed_log_likelihood(
            *arguments,
            prior=prior,
            temperatures=aevb.sigmoid_temperatures(30),
            num_chains=64,
            num_leapfrog_steps=4,
        )
        return sampled, annealed

    for i, x in enumerate(xs):
        sampled, annealed = estimates(opened.params, jax.random.key(i), x)
        error = float(jnp.hypot(sampled.std_error, annealed.std_error))
        assert error < 0.3
        assert abs(sampled.log_likelihood - annealed.log_likelihood) < 4.9 * error


def test_drawn_activations_and_drawn_weights_have_one_predictive_density(finished):
    opened = load_run(finished)
    model, params = opened.program.model, opened.params
    x = jnp.asarray(opened.program.test[0], jnp.float32)
    whole = aevb.predictive_model(model, x)
    found = []
    for one in (opened.program.likelihood_model, whole):
        estimate = jax.jit(
            lambda params, key, one=one: aevb.importance_log_likelihood(
                partial(one.encode, params),
                partial(one.decode, params),
                key,
                x,
                prior=one.prior(params),
                num_samples=2000,
                chunk_size=100,
            )
        )
        found.append(estimate(params, jax.random.key(len(found))))
    error = float(jnp.hypot(found[0].std_error, found[1].std_error))
    assert error < 0.3
    assert abs(found[0].log_likelihood - found[1].log_likelihood) < 4.9 * error


def test_every_lane_is_its_single_run(finished, tmp_path):
    """After 30 steps, to 1e-5 of each leaf's largest; the first is `finished`."""
    overrides = [{"seed": 0, "weight_prior": 1.0}, {"seed": 1, "weight_prior": 0.5}]
    runs = grid.expand(configure(), overrides)
    own = built(runs[0].config)
    trainer = lanes.Trainer(runs[0].config, own, distributed.mesh("lane", 1), len(runs))
    stop = StopRequest()
    found = lanes.train_lanes(
        trainer, runs, tmp_path, stop, lambda *_: None, lambda *_: None
    )
    last = runs[1].config
    single = built(last)
    state = program.initial_state(single, last.seed, program.hyperparameters(last))
    advance = epochs.resident(last, single, None, state)
    for _ in range(single.num_epochs):
        state = advance(state).state
    for i, params in enumerate((load_run(finished).params, state.params)):
        lane = jax.tree.map(lambda leaf, i=i: leaf[i], found.state.params)
        pairs = zip(jax.tree.leaves(lane), jax.tree.leaves(params), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(b)))


def test_with_vanishing_scales_the_bound_is_that_of_the_means():
    config = configure(weights="posterior_all", weight_init_scale=1e-7)
    vague, point = built(config), built(small())
    params = vague.init(jax.random.key(0))
    means = aevb.weight_means(params)
    jax.tree.map(np.testing.assert_array_equal, means, point.init(jax.random.key(0)))
    found = jax.jit(bound_evaluator(vague))(params, jnp.asarray(vague.test))
    expected = jax.jit(bound_evaluator(point))(means, jnp.asarray(point.test))
    np.testing.assert_allclose(found.bound, expected.bound, rtol=1e-5)


def test_an_epoch_lowers_for_tpu_and_cuda_without_the_host():
    config = configure(posterior="gamma")
    own = built(config)
    algorithm = own.algorithm(program.hyperparameters(config))

    def epoch(key, state, images):
        return aevb.epoch(
            algorithm, key, state, images, batch_size=32, transform=own.transform
        )

    state = jax.eval_shape(lambda: algorithm.init(own.init(jax.random.key(0))))
    exported = export.export(jax.jit(epoch), platforms=["tpu", "cuda"])(
        jax.eval_shape(lambda: jax.random.key(0)), state, own.train
    )
    text = exported.mlir_module()
    assert "callback" not in text
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {
        "cu_threefry2x32_ffi",
        "Sharding",
    }
