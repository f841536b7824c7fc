"""Probes of codes: exact on codes that tell, chance on codes that do not."""

import jax
import numpy as np
import pytest
from configurations import small

from experiments import data
from experiments.evaluation.bounds import bound_evaluator
from experiments.evaluation.probes import probe, probe_codes
from experiments.program import build


def codes(rng, labels, distance):
    """Clusters on a line, of deviation 1."""
    return np.stack([distance * labels, 0 * labels], 1) + rng.normal(
        size=(len(labels), 2)
    )


def test_codes_that_tell_have_all_labels_and_noise_has_chance():
    rng = np.random.default_rng(0)
    splits = labels, test_labels = rng.integers(0, 3, 600), rng.integers(0, 3, 2000)
    train, test = (codes(rng, known, 20) for known in splits)
    clear = probe(train, labels, test, test_labels)
    assert (clear.linear, clear.nearest) == (1, 1)
    assert (clear.num_train, clear.num_test) == (600, 2000)
    train, test = (codes(rng, known, 0) for known in splits)
    none = probe(train, labels, test, test_labels)
    error = 4.9 * (2 / 9 / 2000) ** 0.5
    assert abs(none.linear - 1 / 3) < error
    assert abs(none.nearest - 1 / 3) < error


def test_clusters_that_overlap_have_the_rate_of_bayes():
    """Two clusters two deviations apart: Phi(1) of the labels."""
    rng = np.random.default_rng(1)
    labels, test_labels = rng.integers(0, 2, 5000), rng.integers(0, 2, 20_000)
    found = probe(
        codes(rng, labels, 2), labels, codes(rng, test_labels, 2), test_labels
    )
    assert abs(found.linear - 0.8413) < 4.9 * (0.8413 * 0.1587 / 20_000) ** 0.5
    assert 0.76 < found.nearest < 0.8413


@pytest.fixture(scope="module")
def dataset():
    return data.load(num_train=320, num_valid=100, num_test=400)


@pytest.mark.usefixtures("standard_promotion", "cache")
def test_even_an_untrained_encoder_keeps_something_of_a_digit(dataset):
    config = small(latent_dim=10, hidden_dims=(50,), **{"eval.probe_points": 300})
    program = build(config, dataset)
    params = program.init(jax.random.key(0))
    means = jax.jit(bound_evaluator(program))(params, program.test).means
    found = probe_codes(config, program, params, dataset, means)
    assert (found.num_train, found.num_test) == (300, 400)
    for share in (found.linear, found.nearest):
        assert 0.3 < share < 0.95
    config.eval.probe_points = 0
    assert probe_codes(config, program, params, dataset, means) is None
    config.eval.probe_points = 300
    bare = dataset._replace(train=dataset.train._replace(labels=None))
    assert probe_codes(config, program, params, bare, means) is None
