"""Which runs a sweep has, and which of them share a compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from configurations import small

from experiments.errors import ConfigError
from experiments.sweeps import grid

DECAYS = [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999]


def expand(*overrides: dict, **changes: object) -> list[grid.Run]:
    return grid.expand(small(**changes), overrides)


def test_runs_share_no_part_of_their_configurations():
    """They shared `config.data`: all runs of a sweep over it had the last value."""
    runs = expand({"data.num_train": 100}, {"data.num_train": 200}, {"eval.every": 3})
    assert [run.config.data.num_train for run in runs] == [100, 200, 320]
    assert [run.config.eval.every for run in runs] == [5, 5, 3]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_swept_argument_changes_the_swept_arguments(reverse):
    fields = [("optimizer_args", "b1=0.5, b2=0.9"), ("optimizer_args.b2", 0.99)]
    [run] = expand(dict(reversed(fields) if reverse else fields))
    assert run.config.optimizer_args == "b1=0.5, b2=0.99"


def test_a_swept_argument_changes_the_shared_arguments():
    runs = expand(
        {"optimizer_args.b2": 0.99},
        {"optimizer_args.eps": 1e-4},
        {"optimizer_args": "eps=1e-4"},
        {"seed": 3},
        optimizer_args="b2=0.9",
    )
    found = [run.config.optimizer_args for run in runs]
    assert found == ["b2=0.99", "b2=0.9, eps=0.0001", "eps=1e-4", "b2=0.9"]


def test_bad_swept_arguments_are_refused_in_one_line():
    for own in ({"optimizer_args": "0.9"}, {"optimizer_args.b3": 0.9}):
        with pytest.raises(ConfigError, match="the run optimizer_args") as error:
            expand({"optimizer_args.b1": 0.9} | own)
        assert "\n" not in str(error.value)


def test_decays_that_a_float32_does_not_hold_are_compiled_apart():
    runs = expand(*({"optimizer_args.b2": decay} for decay in DECAYS), {"seed": 5})
    groups = [[run.name for run in group] for group in grid.groups(runs)]
    assert groups == [
        [f"optimizer_args.b2={decay}" for decay in (0.5, 0.9, 0.95, 0.99)],
        ["optimizer_args.b2=0.999"],
        ["optimizer_args.b2=0.9999"],
        ["seed=5"],
    ]


def test_runs_with_the_same_decay_share_a_program():
    seeds = [{"seed": 0}, {"seed": 1}, {"seed": 1, "optimizer_args.eps": 1e-4}]
    [first, second] = grid.groups(expand(*seeds, optimizer_args="b2=0.999"))
    assert [run.name for run in first] == ["seed=0", "seed=1"]
    assert [run.name for run in second] == ["seed=1,optimizer_args.eps=0.0001"]
    assert "optimizer_args.b2" not in grid.traced(first[0].config)
    assert grid.traced(second[0].config)["optimizer_args.eps"] == 1e-4


def updates(**arguments: object) -> jax.Array:
    """`[20]` the sum of Adam's updates over 100 steps."""
    optimizer = optax.adam(1e-2, **arguments)
    gradients = jax.random.normal(jax.random.key(0), (100, 20)) + 0.3

    def step(carry, gradient):
        total, state = carry
        update, state = optimizer.update(gradient, state)
        return (total + update, state), None

    start = jnp.zeros(20), optimizer.init(jnp.zeros(20))
    return jax.lax.scan(step, start, gradients)[0][0]


@pytest.mark.parametrize("name", ["b1", "b2"])
@pytest.mark.usefixtures("standard_promotion")  # optax.adam raises to a power
def test_a_traced_argument_of_the_optimizer_keeps_the_promised_digits(name):
    """1e-5 of the largest after 100 steps, as lanes promise."""
    kept = [
        decay
        for decay in DECAYS
        if f"optimizer_args.{name}"
        in grid.traced(small(optimizer_args=f"{name}={decay}"))
    ]
    assert kept == [0.5, 0.9, 0.95, 0.99]
    traced = jax.jit(jax.vmap(lambda decay: updates(**{name: decay})))(jnp.array(kept))
    for found, decay in zip(traced, kept, strict=True):
        expected = jax.jit(lambda decay=decay: updates(**{name: decay}))()
        largest = np.max(np.abs(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)
