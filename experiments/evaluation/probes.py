"""What the codes of a trained model are worth: labels that others learn from them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.data import Dataset, read_rows
from experiments.evaluation.points import evenly_spaced
from experiments.program import Program, drawn_once

__all__ = ["NUM_NEIGHBOURS", "Probes", "probe", "probe_codes"]

NUM_NEIGHBOURS = 5
# A linear probe that has not converged would depend on where it was stopped.
_MAX_ITERATIONS = 2000
_BATCH_SIZE = 500


class Probes(NamedTuple):
    """Shares of test images whose label is found from E[z|x].

    Attributes:
      linear: by logistic regression on standardised codes.
      nearest: by the `NUM_NEIGHBOURS` nearest training codes.
      num_train: training images whose labels they know.
      num_test: test images.
    """

    linear: float
    nearest: float
    num_train: int
    num_test: int


def probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
) -> Probes:
    """Fits both classifiers, and scores them.

    Args:
      train: `[N, J]` codes.
      train_labels: `[N]`, of two kinds at least.
      test: `[n, J]` codes.
      test_labels: `[n]`.
    """
    # Imported here: it takes a second, which every command would take.
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=_MAX_ITERATIONS)
    ).fit(train, train_labels)
    nearest = KNeighborsClassifier(NUM_NEIGHBOURS, algorithm="brute").fit(
        train, train_labels
    )
    return Probes(
        linear=float(linear.score(test, test_labels)),
        nearest=float(nearest.score(test, test_labels)),
        num_train=len(train),
        num_test=len(test),
    )


def probe_codes(
    config: ConfigDict,
    program: Program,
    params: Any,
    dataset: Dataset,
    test_means: np.ndarray,
) -> Probes | None:
    """Probes of a run, with `config.eval.probe_points` training images.

    Args:
      config: of the run.
      program: of the run.
      params: trained, in memory.
      dataset: its data.
      test_means: `[n, J]` the codes of its test images.

    Returns:
      The probes; None where there are no labels, or none are asked for.
    """
    labels, test_labels = dataset.train.labels, dataset.test.labels
    wanted = config.eval.probe_points
    if not wanted or labels is None or test_labels is None:
        return None
    indices = evenly_spaced(len(labels), wanted)
    if len(np.unique(labels[indices])) < 2 or len(indices) < NUM_NEIGHBOURS:
        return None

    def one(params: Any, index: jax.Array, image: jax.Array) -> jax.Array:
        x = drawn_once(config, program, index, image)
        q: Any = program.model.encode(params, x)
        return q.mean

    means = jax.jit(partial(jax.vmap(one, (None, 0, 0)), params))
    found = []
    for first in range(0, len(indices), _BATCH_SIZE):
        # The last batch is filled up: one shape, one program.
        own = np.resize(indices[first : first + _BATCH_SIZE], _BATCH_SIZE)
        found.append(np.asarray(means(own, read_rows(program.train, own))))
    codes = np.concatenate(found)[: len(indices)]
    return probe(codes, labels[indices], np.asarray(test_means), test_labels)
