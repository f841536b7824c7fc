"""The normal scores of each prior, the axes of the codes, and the images shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small

from experiments.config import GENERIC_POSTERIORS, POSTERIORS
from experiments.data import load
from experiments.explorer.codes import (
    SCORES,
    choose_examples,
    describe_codes,
    prior_quantiles,
)
from experiments.program.posteriors import family_of

RNG = np.random.default_rng(0)
SHAPES = {
    "student_t": 3.0,
    "gamma": 0.5,
    "weibull": 2.0,
    "beta": 2.0,
    "kumaraswamy": 0.7,
}
TABULATED = [name for name in POSTERIORS if name not in ("normal", "dirichlet")]


def of_family(name, dim=1):
    return small(
        posterior=name,
        prior_shape=SHAPES.get(name, 0.0),
        latent_dim=dim,
        estimator="sgvb_a" if name in GENERIC_POSTERIORS else "sgvb_b",
    )


@pytest.mark.parametrize("name", TABULATED)
def test_scores_of_draws_from_the_prior_are_standard_normal(name):
    """p(z) dz/du = N(u; 0, 1), with p the prior that the run has."""
    config = of_family(name)
    z = prior_quantiles(config)
    assert z.shape == SCORES.shape
    assert (np.diff(z) > 0).all()
    # A Laplace has a kink in the middle.
    inner = (np.abs(SCORES[1:-1]) < 3.5) & (np.abs(SCORES[1:-1]) > 0.015)
    slope = (z[2:] - z[:-2]) / (SCORES[2:] - SCORES[:-2])
    density = jax.vmap(family_of(config).prior.log_prob)(
        jnp.asarray(z[1:-1, None], jnp.float32)
    )
    found = np.asarray(density, float) + np.log(slope)
    expected = -0.5 * SCORES[1:-1] ** 2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-3)


def test_a_standard_normal_is_its_own_score():
    assert prior_quantiles(small()) is None


def test_a_dirichlet_has_no_scores():
    with pytest.raises(ValueError, match="dirichlet has no independent"):
        prior_quantiles(of_family("dirichlet", 3))


def test_axes_are_those_of_most_variance():
    axes, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
    means = RNG.normal(size=(3000, 5)) * [3, 0.1, 2, 1, 0.1] @ axes.T + 1
    codes = describe_codes(means.astype("f4"), small(latent_dim=5), num_axes=3)
    np.testing.assert_allclose(
        np.abs(codes.axes @ axes[:, [0, 2, 3]]), np.eye(3), atol=0.1
    )
    centred = means - means.mean(axis=0)
    np.testing.assert_allclose(codes.centre, means.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        codes.spread, (centred @ codes.axes.T).std(axis=0), rtol=1e-5
    )
    shares = codes.spread**2 / centred.var(axis=0).sum()
    np.testing.assert_allclose(codes.shares, shares, rtol=1e-5)
    # On the map, in units of the spread.
    assert codes.plane.shape == (2000, 2)
    np.testing.assert_allclose(codes.plane.std(axis=0), 1, atol=0.05)


def test_codes_of_a_family_are_described_by_their_scores():
    config = of_family("beta", dim=2)
    scores = RNG.normal(size=(50, 2))
    z = np.interp(scores, SCORES, prior_quantiles(config))
    codes = describe_codes(z.astype("f4"), config)
    np.testing.assert_allclose(codes.plane, scores, atol=1e-3)


def test_codes_that_do_not_vary_have_a_unit_all_the_same():
    codes = describe_codes(np.zeros((9, 3), "f4"), small(latent_dim=3))
    assert (codes.spread > 0).all()
    assert codes.shares.tolist() == [0, 0, 0]


def test_without_an_encoder_the_axes_are_those_of_z():
    codes = describe_codes(None, small(latent_dim=4, algorithm="mcem"))
    np.testing.assert_array_equal(codes.axes, np.eye(4))
    assert codes.plane.shape == (0, 2)
    assert len(codes.shares) == 0


def test_as_many_images_of_each_class():
    data = load()
    chosen = choose_examples(data)
    assert np.bincount(data.test.labels[chosen]).tolist() == [10] * 10
    unlabelled = data._replace(test=data.test._replace(labels=None))
    assert len(set(choose_examples(unlabelled, 7).tolist())) == 7
