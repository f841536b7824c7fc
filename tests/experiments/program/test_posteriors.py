"""Families of q(z|x) by name: at the prior where the encoder says nothing, and to the
end of a run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import measured, small

import aevb
from experiments import data, mnist, program
from experiments.config import GENERIC_POSTERIORS, POSTERIORS
from experiments.evaluation.bounds import bound_evaluator
from experiments.program.posteriors import family_of

# optax.adam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("standard_promotion", "cache")

each_posterior = pytest.mark.parametrize("name", POSTERIORS)


def configure(name, **changes):
    estimator = "stl" if name in GENERIC_POSTERIORS else "sgvb_b"
    return small(posterior=name, estimator=estimator, **changes)


@pytest.fixture(scope="module")
def dataset():
    return data.load(num_train=320, num_valid=100, num_test=40)


@each_posterior
def test_zeros_stand_for_the_prior(name):
    """Of one density: the KL is zero, and so is each log ratio of a draw."""
    family = family_of(configure(name, latent_dim=3))
    q = family.posterior(*[jnp.zeros(3)] * family.num_parameters)
    p = aevb.prior_or_normal(family.prior, jnp.zeros(3))
    if name == "weibull":  # of the gamma prior with a concentration of 1
        assert isinstance(p, aevb.Gamma)

    @jax.jit
    def evaluate(q, p, keys):
        zs = jax.vmap(p.sample)(keys)
        has_kl = name not in GENERIC_POSTERIORS
        kl = aevb.kl_divergence(q, p) if has_kl else jnp.zeros(())
        return jax.vmap(q.log_prob)(zs), jax.vmap(p.log_prob)(zs), kl

    of_q, of_p, kl = evaluate(q, p, jax.random.split(jax.random.key(0), 20))
    np.testing.assert_allclose(of_q, of_p, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(kl, 0, atol=1e-5)


@each_posterior
def test_the_decoder_gets_numbers_of_mean_0_and_deviation_1(name):
    family = family_of(configure(name, latent_dim=3))
    p = aevb.prior_or_normal(family.prior, jnp.zeros(3))
    zs = jax.jit(jax.vmap(p.sample))(jax.random.split(jax.random.key(1), 20_000))
    inputs = (zs - family.loc) / family.scale
    # Standard errors: 0.007 of the mean; of the deviation up to 0.1 (log-normal).
    np.testing.assert_allclose(jnp.mean(inputs, 0), 0, atol=0.035)
    loose = 0.5 if name == "log_normal" else 0.12
    np.testing.assert_allclose(jnp.std(inputs, 0), 1, atol=loose)


# Of those on the real line as they are, Laplace.
@pytest.mark.parametrize(
    "name", [n for n in POSTERIORS if n not in {"normal", "logistic", "student_t"}]
)
def test_log_likelihood_on_the_real_line_is_that_of_a_grid(name, dataset):
    """Importance sampling on real numbers, and annealing for one, against a grid."""
    latent_dim = 2 if name == "dirichlet" else 1
    built = program.build(configure(name, latent_dim=latent_dim), dataset)
    model = built.likelihood_model
    # Weights that give z a say, and an encoder that is wrong.
    params = jax.tree.map(lambda w: 2 * w, built.init(jax.random.key(0)))
    x = built.to_input(jnp.asarray(built.test[0]))

    @jax.jit
    def estimates(params, key, x):
        encode, decode = partial(model.encode, params), partial(model.decode, params)
        prior = aevb.prior_or_normal(model.prior(params), jnp.zeros(1))
        wide = {"num_points": 4001, "scale_tril": 3 * jnp.eye(1)}
        truth = aevb.quadrature(decode, x, latent_dim=1, prior=prior, **wide)
        given = {"prior": prior}
        found = [
            aevb.importance_log_likelihood(
                encode, decode, key, x, num_samples=2000, **given
            )
        ]
        if name == "dirichlet":
            path = {"temperatures": aevb.sigmoid_temperatures(30), "num_chains": 100}
            found.append(
                aevb.annealed_log_likelihood(
                    lambda x: prior, decode, key, x, **path, **given
                )
            )
        return truth.log_likelihood, found

    truth, found = estimates(params, jax.random.key(1), x)
    for estimate in found:
        assert abs(estimate.log_likelihood - truth) < 4.9 * estimate.std_error + 1e-3
    assert 0.4 < getattr(found[-1], "acceptance", 0.65) < 0.95


@pytest.mark.parametrize("name", ["beta", "student_t", "dirichlet"])
def test_the_bound_says_what_is_known_of_each_dimension(name, dataset):
    built = program.build(configure(name), dataset)
    params = built.init(jax.random.key(0))
    found = jax.jit(bound_evaluator(built))(params, jnp.asarray(built.test))
    assert np.isfinite(found.bound)
    assert found.means.shape == (40, 2)
    if name == "beta":
        np.testing.assert_allclose(jnp.sum(found.kl_per_dim), found.kl, rtol=1e-4)
    else:
        assert found.kl_per_dim.shape == (0,)


def test_a_run_with_a_bounded_latent_from_training_to_its_log_likelihood(tmp_path):
    """Trained, reported, and its log p(x) sampled."""
    workdir = tmp_path / "run"
    mnist.run(configure("beta", epochs=1), workdir)
    assert (workdir / "report.html").exists()
    assert measured(workdir, temperatures=0) == {"importance-300"}
