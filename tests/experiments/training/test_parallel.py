"""One run on eight devices, or of data on the disk, is the run on one, in memory."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small
from jax import export
from jax.sharding import AxisType, Mesh, PartitionSpec
from ml_collections import ConfigDict

import aevb
from experiments import data, mnist
from experiments.errors import ConfigError, StoppedError
from experiments.evaluation.bounds import bound_evaluator
from experiments.evaluation.estimators import importance
from experiments.evaluation.points import point_evaluator
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.program import build, hyperparameters
from experiments.storage.checkpoints import Checkpoints
from experiments.training import epochs, runner
from experiments.training import loop as training
from experiments.training.result import Result

# optax.adam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("cache", "standard_promotion")

NUM_EPOCHS = 10  # of 10 steps
COLLECTIVES = r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"


WIDE = {
    "hidden_dims": (16,),
    "epochs": NUM_EPOCHS,
    "weight_prior": 1.0,
    "eval.num_samples": 30,
    "eval.chunk_size": 7,
    "eval.num_points": 12,
    "eval.batch_size": 4,
}


def wide(**changes: object) -> ConfigDict:
    return small(**{**WIDE, **changes})


def built(config: ConfigDict):
    dataset = data.load(num_train=320, num_valid=100, num_test=50)
    return build(config, dataset)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return distributed.mesh("data", 8)


def trained(config: ConfigDict, mesh: Mesh | None, make=epochs.resident) -> tuple:
    """The state after all epochs, and the objective of each."""
    program = built(config)
    state = training.start(config, program)
    if mesh is not None:
        state = distributed.replicate(state, mesh)
    advance = make(config, program, mesh, state)
    objectives = []
    while int(state.step) < program.num_epochs * program.steps_per_epoch:
        state, info, finite, _ = advance(state)
        objectives.append(float(info.objective))
        assert finite
    return jax.device_get(state), np.array(objectives)


def assert_close(one: object, other: object, rtol: float) -> None:
    """Equal to `rtol` of each leaf's largest entry."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        scale = np.max(np.abs(a), initial=1e-30)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale)


def test_data_parallel_has_the_losses_of_one_device(mesh):
    """100 steps: the sums' order differs, which Adam's division makes larger."""
    one_state, one = trained(wide(), None)
    state, objectives = trained(wide(), mesh)
    np.testing.assert_allclose(objectives, one, rtol=1e-5)
    assert_close(state.params, one_state.params, 1e-3)


def test_a_step_holds_one_all_reduce_and_no_other_collective(mesh):
    config = wide()
    program = built(config)
    algorithm = program.algorithm(hyperparameters(config), axis_name=epochs.AXIS)

    def one_epoch(key, state, images):
        return aevb.epoch(
            algorithm,
            key,
            state,
            images,
            batch_size=config.batch_size,
            transform=program.transform,
            axis_name=epochs.AXIS,
        )

    everywhere = PartitionSpec()
    split = jax.shard_map(
        one_epoch, mesh=mesh, in_specs=everywhere, out_specs=everywhere
    )
    arguments = jax.eval_shape(
        lambda: (jax.random.key(0), training.start(config, program), program.train)
    )
    text = jax.jit(split).lower(*arguments).compile().as_text()
    found = re.findall(COLLECTIVES + r"(?:-start)?\(", text)
    assert found == ["all-reduce"]
    assert "callback" not in text
    # It is in the loop over the steps, and holds every parameter's gradient.
    size = sum(leaf.size for leaf in jax.tree.leaves(arguments[1].params))
    [line] = [line for line in text.splitlines() if " all-reduce(" in line]
    [count] = re.findall(r"f32\[(\d+)\]\S* all-reduce", line)
    assert size < int(count) < size + 10


def test_the_axis_must_divide_the_minibatch(mesh):
    with pytest.raises(ConfigError, match="a multiple of the 8 devices"):
        runner._mesh(wide(batch_size=12), 8)
    config = wide(batch_size=12)
    with pytest.raises(ValueError, match="batch_size is 12, expected a multiple of 8"):
        trained(config, mesh)


def test_the_mesh_has_as_many_devices_as_there_are():
    assert runner._mesh(wide(), 0) is None
    assert runner._mesh(wide(), 1) is None
    assert runner._mesh(wide(), 4).size == 4
    with pytest.raises(ConfigError, match="--devices=9, expected at most 8"):
        distributed.mesh("data", 9)


# ---- data on the disk ----


@pytest.fixture
def blocks_of_three_steps(monkeypatch):
    monkeypatch.setattr(epochs, "_BLOCK_BYTES", 3 * 32 * 784)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_streamed_batches_are_those_in_memory(num_devices, blocks_of_three_steps, mesh):
    where = mesh if num_devices > 1 else None
    # Adam divides by what may be near zero, and two programs round differently.
    config = wide(epochs=3, optimizer="sgd")
    one, objectives = trained(config, where)
    state, blocks = trained(config, where, epochs.streamed)
    assert_close(state.params, one.params, 1e-6)
    assert len(blocks) == 3 * 4  # of 3, 3, 3 and 1 steps
    means = np.average(blocks.reshape(3, 4), axis=1, weights=[3, 3, 3, 1])
    np.testing.assert_allclose(means, objectives, rtol=1e-6)


def test_a_streamed_run_goes_on_within_an_epoch(
    tmp_path, blocks_of_three_steps, stop_after
):
    config = wide(epochs=2, **{"data.stream": "always"})
    program = built(config)
    assert program.is_streamed
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = training.train(config, program, tmp_path / "whole", StopRequest())
    with pytest.raises(StoppedError):
        training.train(config, program, tmp_path / "cut", stop_after(2))
    assert Checkpoints(tmp_path / "cut").steps() == [6]
    again = training.train(config, program, tmp_path / "cut", StopRequest())
    assert again.lines == whole.lines
    for a, b in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_streaming_is_chosen_by_size_or_by_the_field(monkeypatch):
    assert not built(wide()).is_streamed
    monkeypatch.setattr("experiments.program.assembly.STREAM_BYTES", 1000)
    assert built(wide()).is_streamed
    assert not built(wide(**{"data.stream": "never"})).is_streamed
    with pytest.raises(ConfigError, match=r"binarization=dynamic or .*stream=never"):
        built(wide(**{"data.binarization": "static"}))


# ---- evaluation ----


def test_the_bound_is_split_over_datapoints(mesh):
    program = built(wide())
    params = training.start(wide(), program).params
    one = jax.jit(bound_evaluator(program))(params, program.test)
    split = jax.jit(bound_evaluator(program, mesh=mesh))
    found = split(*distributed.replicate((params, program.test), mesh))
    assert found.means.shape == (50, 2)  # 50 is no multiple of 8
    for a, b in zip(found, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_points", [19, 3], ids=["datapoints", "samples"])
def test_log_p_is_split_over_datapoints_or_samples(num_points, mesh):
    program = built(wide())
    params = training.start(wide(), program).params
    indices = np.arange(num_points)
    estimator = importance(
        program.likelihood_model, num_samples=30, chunk_size=7, batch_size=2
    )
    one, split = (
        point_evaluator(estimator, program.to_input, mesh=where, share=True)(
            params, program.test, indices
        ).values
        for where in (None, mesh)
    )
    if num_points > 8:  # each device has points of its own: the program of one device
        np.testing.assert_array_equal(split["log_likelihood"], one["log_likelihood"])
    np.testing.assert_allclose(
        split["log_likelihood"], one["log_likelihood"], rtol=1e-5
    )
    np.testing.assert_allclose(split["ess"], one["ess"], rtol=1e-3)


@pytest.mark.parametrize("num_samples", [1, 50, 1003])
def test_devices_share_the_samples_of_a_datapoint(num_samples, mesh):
    def estimate(key, x, axis_name=None):
        return aevb.importance_log_likelihood(
            lambda x: aevb.DiagNormal(jnp.zeros(2), jnp.full(2, 0.3)),
            lambda z: aevb.DiagNormal(jnp.tile(z, 2), jnp.zeros(4)),
            key,
            x,
            num_samples=num_samples,
            chunk_size=20,
            axis_name=axis_name,
        )

    arguments = (jax.random.key(1), jnp.arange(4.0))
    one = jax.jit(estimate)(*arguments)
    split = jax.shard_map(
        partial(estimate, axis_name="data"),
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
    )
    found = jax.jit(split)(*arguments)
    for a, b in zip(found, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


# ---- whole runs ----


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> Result:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return mnist.run(wide(epochs=2), tmp_path_factory.mktemp("runs") / "one")


def test_a_run_goes_on_with_another_number_of_devices(
    one_device, tmp_path, capsys, stop_after
):
    config = wide(epochs=2)
    program = built(config)
    eight, two = distributed.mesh("data", 8), distributed.mesh("data", 2)
    with pytest.raises(StoppedError):
        training.train(config, program, tmp_path, stop_after(1), eight)
    assert Checkpoints(tmp_path).steps() == [10]
    again = training.train(config, program, tmp_path, StopRequest(), two)
    assert "continues from step 10" in capsys.readouterr().out
    for a, b in zip(again.lines, one_device.metrics, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_a_run_on_four_devices_is_the_run_on_one(one_device, tmp_path):
    four = mnist.run(wide(epochs=2), tmp_path / "four", num_devices=4)
    bound = float(one_device.test.bound)
    assert float(four.test.bound) == pytest.approx(bound, rel=1e-5)
    np.testing.assert_allclose(
        four.likelihood.points.values["log_likelihood"],
        one_device.likelihood.points.values["log_likelihood"],
        rtol=1e-4,
    )


# ---- accelerators ----


@pytest.mark.parametrize("stream", [False, True], ids=["resident", "streamed"])
def test_the_data_parallel_step_lowers_for_tpu_and_cuda(stream):
    config = wide()
    program = built(config)
    devices = np.array(jax.devices()[:8])
    mesh = Mesh(devices, (epochs.AXIS,), axis_types=(AxisType.Auto,))
    algorithm = program.algorithm(hyperparameters(config), axis_name=epochs.AXIS)
    options = {"transform": program.transform, "axis_name": epochs.AXIS}

    def one_epoch(key, state, images):
        if stream:
            return aevb.scan_updates(algorithm, key, state, images, **options)
        return aevb.epoch(algorithm, key, state, images, batch_size=32, **options)

    images = PartitionSpec(None, epochs.AXIS) if stream else PartitionSpec()
    split = jax.shard_map(
        one_epoch,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), images),
        out_specs=PartitionSpec(),
    )
    shape = (3, 32, 784) if stream else program.train.shape
    arguments = (
        *jax.eval_shape(lambda: (jax.random.key(0), training.start(config, program))),
        jax.ShapeDtypeStruct(shape, np.uint8),
    )
    exported = export.export(jax.jit(split), platforms=["tpu", "cuda"])(*arguments)
    text = exported.mlir_module()
    assert "callback" not in text
    assert text.count("stablehlo.all_reduce") == 1
    for host in ("infeed", "outfeed", "stablehlo.send", "stablehlo.recv"):
        assert host not in text
