"""Every stream of random keys that the programs have, by name.

What is random in a run and must differ between seeds follows from `config.seed`
(`initial_key`, `run_key`). What must be the same for every seed, so that runs can be
compared, follows from `FIXED_SEED` and a `Stream`: the once-drawn binarisation of the
evaluation splits, the noise of evaluations. The numbers are part of every result: a new
stream takes a new number, and a number is never used twice.
"""

from enum import Enum

import jax

__all__ = ["FIXED_SEED", "Stream", "initial_key", "run_key", "stream_key"]

FIXED_SEED = 1312_6114


class Stream(Enum):
    """What a key is for. Two numbers: estimates that `--seed` draws anew."""

    TRAIN_PIXELS = (0,)
    VALID_PIXELS = (1,)
    TEST_PIXELS = (2,)
    BOUND = (3,)
    LOG_LIKELIHOOD = (4,)
    IMPORTANCE_AGAIN = (5, 0)
    ANNEALED = (5, 1)
    SANDWICH = (5, 2)
    RECIPROCAL = (5, 3)
    QUADRATURE = (5, 4)
    INFERENCE_GAP = (5, 5)
    STEP_SIZES = (6,)
    PRIOR_SAMPLES = (7,)
    TEST_POINTS = (8,)
    APPENDIX_D = (9,)
    CHAIN_STARTS = (10,)
    RESTORATION = (11, 0)
    RESTORATION_SANDWICH = (11, 1)
    RESTORATION_STEPS = (12,)
    CODES = (13, 0)


def stream_key(stream: Stream, seed: int = 0) -> jax.Array:
    """The key of a stream.

    Args:
      stream: what the key is for.
      seed: other draws of the same estimates; 0 are the ones that are reported.

    >>> stream_key(Stream.BOUND).shape
    ()
    """
    if stream is Stream.LOG_LIKELIHOOD and seed:
        stream = Stream.IMPORTANCE_AGAIN
    first, *last = stream.value
    key = jax.random.fold_in(jax.random.key(FIXED_SEED), first)
    for number in last:
        key = jax.random.fold_in(jax.random.fold_in(key, seed), number)
    return key


def initial_key(seed: jax.Array | int) -> jax.Array:
    """The key of a run's initial parameters; `seed` may be traced."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def run_key(seed: jax.Array | int) -> jax.Array:
    """The key of a run's steps; `seed` may be traced."""
    return jax.random.fold_in(jax.random.key(seed), 1)
