"""The one loop over datapoints: whatever is asked for, a point has one value."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small
from jax import export

import aevb
from experiments import data
from experiments.errors import StoppedError
from experiments.evaluation.estimators import importance
from experiments.evaluation.points import (
    Measured,
    Progress,
    evenly_spaced,
    point_evaluator,
)
from experiments.keys import Stream, stream_key
from experiments.processes import distributed
from experiments.program import build
from experiments.storage.parts import Parts
from experiments.training.loop import start

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def program():
    return build(small(), data.load(num_train=320, num_valid=100, num_test=40))


@pytest.fixture(scope="module")
def params(program):
    return jax.jit(partial(start, small(), program))().params


@pytest.fixture(scope="module")
def estimator(program):
    return importance(
        program.likelihood_model, num_samples=20, chunk_size=6, batch_size=3
    )


@pytest.fixture(scope="module")
def whole(program, params, estimator) -> Measured:
    evaluate = point_evaluator(estimator, program.to_input)
    return evaluate(params, program.test, np.arange(11))


def same(one: Measured, other: Measured, places: list[int]) -> None:
    for name, values in one.values.items():
        np.testing.assert_array_equal(values, other.values[name][places])


@pytest.mark.default_flags
def test_a_value_is_that_of_the_estimator_at_the_point_s_key(program, params, whole):
    for i in (0, 10):
        estimate = jax.jit(
            lambda key, x: aevb.importance_log_likelihood(
                partial(program.model.encode, params),
                partial(program.model.decode, params),
                key,
                x,
                num_samples=20,
            )
        )(
            jax.random.fold_in(stream_key(Stream.LOG_LIKELIHOOD), i),
            program.to_input(jnp.asarray(program.test[i])),
        )
        value = whole.values["log_likelihood"][i]
        assert value == pytest.approx(float(estimate.log_likelihood), rel=1e-5)


@pytest.mark.default_flags
@pytest.mark.parametrize("indices", [[7], [0, 4, 9, 10], [10, 3]])
def test_any_of_the_points_have_the_bits_of_all(
    indices, program, params, estimator, whole
):
    evaluate = point_evaluator(estimator, program.to_input)
    same(evaluate(params, program.test, np.array(indices)), whole, indices)


@pytest.mark.default_flags
@pytest.mark.parametrize("num_devices", [2, 8])
def test_any_number_of_devices_has_the_bits_of_one(
    num_devices, program, params, estimator, whole
):
    mesh = distributed.mesh("points", num_devices)
    evaluate = point_evaluator(estimator, program.to_input, mesh=mesh)
    same(evaluate(params, program.test, np.arange(11)), whole, list(range(11)))
    same(evaluate(params, program.test, np.array([5])), whole, [5])


def test_lanes_have_the_values_of_their_single_runs(program, estimator):
    own = [
        jax.jit(partial(start, small(seed=seed), program))().params for seed in (0, 1)
    ]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)
    mesh = distributed.mesh("lane", 2)
    lanes = point_evaluator(estimator, program.to_input, mesh=mesh, lanes=True)
    found = lanes(both, program.test, np.arange(4))
    assert found.values["log_likelihood"].shape == (4, 2)
    alone = point_evaluator(estimator, program.to_input)
    for i, params in enumerate(own):
        expected = alone(params, program.test, np.arange(4))
        np.testing.assert_allclose(
            found.values["log_likelihood"][:, i],
            expected.values["log_likelihood"],
            rtol=1e-6,
        )


def test_stopped_it_goes_on_and_more_points_only_do_what_is_missing(
    program, params, estimator, whole, tmp_path, stop_after
):
    evaluate = point_evaluator(estimator, program.to_input)

    def parts() -> Parts:
        return Parts(tmp_path / "points.jsonl", "of this test")

    seen: list[Progress] = []
    with pytest.raises(StoppedError):
        evaluate(
            params,
            program.test,
            np.arange(7),
            parts=parts(),
            stop=stop_after(1),
            report=seen.append,
        )
    assert [progress.done for progress in seen] == [3, 6]
    kept = (tmp_path / "points.jsonl").read_bytes()
    found = evaluate(params, program.test, np.arange(11), parts=parts())
    assert (tmp_path / "points.jsonl").read_bytes().startswith(kept)
    same(found, whole, list(range(11)))

    def again(*_: object) -> None:
        raise AssertionError("a finished point is computed again")

    finished = parts()
    finished.put_all = again
    assert (
        len(evaluate(params, program.test, np.arange(5), parts=finished).indices) == 5
    )


def test_another_seed_has_other_draws_of_the_same_quantity(
    program, params, estimator, whole
):
    evaluate = point_evaluator(estimator, program.to_input, seed=1)
    found = evaluate(params, program.test, np.arange(11)).values["log_likelihood"]
    assert not np.any(found == whole.values["log_likelihood"])
    np.testing.assert_allclose(found, whole.values["log_likelihood"], rtol=0.05)


def test_points_are_evenly_spaced_and_all_where_too_many_are_wanted():
    assert evenly_spaced(10, 0).tolist() == list(range(10))
    assert evenly_spaced(10, 11).tolist() == list(range(10))
    assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")],
)
def test_the_products_have_their_precision_on_every_platform(precision, expected):
    """float32 is float32 on a TPU and on a GPU too: the lowered program says so."""
    config = small(**{"eval.precision": precision})
    program = build(config, data.load(num_train=320, num_valid=100, num_test=4))
    estimator = importance(
        program.likelihood_model, num_samples=4, chunk_size=2, batch_size=1
    )
    arguments = jax.eval_shape(
        lambda: (
            start(config, program).params,
            jax.random.key(0),
            program.to_input(jnp.zeros(784, jnp.uint8)),
        )
    )
    lowered = export.export(jax.jit(estimator.function), platforms=["tpu", "cuda"])
    text = lowered(*arguments).mlir_module()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) >= 4
    for line in products:
        found = re.search(r"precision = \[(\w+), (\w+)\]", line)
        words = set(found.groups()) if found else {"DEFAULT"}
        assert words == {expected}, line
        if precision == "bfloat16":
            assert "bf16" in line
