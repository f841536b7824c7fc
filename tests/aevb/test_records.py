"""Records are pytrees that a compiled function takes for what they are."""

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from aevb.records import record, static


@record
class Scaled:
    """Two leaves, and a number that is none."""

    loc: jax.Array
    scale: jax.Array
    power: int = static()


def test_leaves_are_the_fields_that_are_not_static():
    one = Scaled(jnp.zeros(2), jnp.ones(2), 3)
    named = jax.tree.leaves_with_path(one)
    assert [jax.tree_util.keystr(path) for path, _ in named] == [".loc", ".scale"]
    assert jax.tree.map(lambda leaf: leaf + 1, one).power == 3
    assert jax.tree.structure(one) != jax.tree.structure(
        Scaled(*jax.tree.leaves(one), 4)
    )


def test_one_compiled_function_takes_no_class_for_another():
    """With `register_dataclass` JAX 0.10.2 did so in about one call in a hundred."""
    kinds = [
        aevb.DiagNormal, aevb.Laplace, aevb.Logistic, aevb.Gumbel, aevb.Cauchy,
        aevb.LogNormal, aevb.Weibull, aevb.Gamma,
    ]  # fmt: skip
    distributions = [kind(jnp.ones(1), jnp.ones(1)) for kind in kinds]
    which = jax.jit(lambda d, x: x + kinds.index(type(d)))
    for size in range(2, 42):
        for index, d in enumerate(distributions):
            np.testing.assert_array_equal(which(d, np.zeros(size)), index)
