"""Matrix products that say their precision on every platform."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = [
    "bfloat16_dot_general",
    "float32_dot_general",
    "tensorfloat32_dot_general",
]


def float32_dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, *_: Any, **__: Any
) -> jax.Array:
    """`lax.dot_general` in float32 on every platform, forward and backward.

    JAX's default precision of a float32 product is bfloat16 on a TPU and TF32 on a
    recent GPU. Here the program says what it wants; on a CPU it is the same program.

    Args:
      lhs: left operand.
      rhs: right operand.
      dimension_numbers: as in `lax.dot_general`; precision arguments are ignored.

    Returns:
      The product.

    >>> dimensions = (((1,), (0,)), ((), ()))
    >>> print(float32_dot_general(jnp.ones((1, 2)), jnp.ones((2, 1)), dimensions))
    [[2.]]
    """
    return lax.dot_general(lhs, rhs, dimension_numbers, precision=lax.Precision.HIGHEST)


def tensorfloat32_dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, *_: Any, **__: Any
) -> jax.Array:
    """`lax.dot_general` with TF32 products on a GPU, three bfloat16 passes on a TPU.

    About half of float32's digits at several times its rate; on a CPU it is float32.

    Args:
      lhs: left operand.
      rhs: right operand.
      dimension_numbers: as in `lax.dot_general`; precision arguments are ignored.

    Returns:
      The product.

    >>> dimensions = (((1,), (0,)), ((), ()))
    >>> print(tensorfloat32_dot_general(jnp.ones((1, 2)), jnp.ones((2, 1)), dimensions))
    [[2.]]
    """
    return lax.dot_general(lhs, rhs, dimension_numbers, precision=lax.Precision.HIGH)


def bfloat16_dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, *_: Any, **__: Any
) -> jax.Array:
    """`lax.dot_general` with bfloat16 inputs and float32 sums, forward and backward.

    Both operands are rounded to bfloat16 (8 significant bits); the products are summed
    and returned in float32. In the backward pass the cotangent is rounded too, so that
    all three matrix products of a layer run at the bfloat16 rate (AMX, TPU), and the
    two gradients, summed in float32, are rounded once as they are stored.

    Args:
      lhs: left operand.
      rhs: right operand.
      dimension_numbers: as in `lax.dot_general`; precision arguments are ignored.

    Returns:
      The product, float32.

    >>> dimensions = (((1,), (0,)), ((), ()))
    >>> print(bfloat16_dot_general(jnp.ones((1, 2)), jnp.ones((2, 1)), dimensions))
    [[2.]]
    """
    return _bfloat16_dot(lhs, rhs, dimension_numbers)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _bfloat16_dot(lhs: jax.Array, rhs: jax.Array, dimensions: Any) -> jax.Array:
    return lax.dot_general(
        lhs.astype(jnp.bfloat16),
        rhs.astype(jnp.bfloat16),
        dimensions,
        preferred_element_type=jnp.float32,
    )


@_bfloat16_dot.defjvp
def _(dimensions: Any, primals: tuple, tangents: tuple) -> tuple:
    # A dot_general is transposed with its output's dtype for the cotangent. A tangent
    # in bfloat16 is what makes the backward products bfloat16 too; a custom_vjp would
    # do it as well, but vmap then sums one outer product a datapoint instead of making
    # one matrix product of the batch.
    lhs, rhs = (operand.astype(jnp.bfloat16) for operand in primals)
    lhs_dot, rhs_dot = (tangent.astype(jnp.bfloat16) for tangent in tangents)
    tangent = lax.dot_general(lhs_dot, rhs, dimensions).astype(jnp.float32)
    tangent += lax.dot_general(lhs, rhs_dot, dimensions).astype(jnp.float32)
    return _bfloat16_dot(*primals, dimensions), tangent
