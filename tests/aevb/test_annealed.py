"""Annealed importance sampling, forward and in reverse."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_models import linear_model, standard_normal

import aevb
from aevb import testing

LINEAR = linear_model(6, 2)
X = jnp.linspace(-1.0, 2.0, 6)


@pytest.mark.parametrize(("data_dim", "latent_dim"), [(3, 1), (20, 5)])
def test_exact_posterior_gives_log_p_for_every_chain(data_dim, latent_dim):
    model = linear_model(data_dim, latent_dim)
    x = jnp.linspace(-1.0, 2.0, data_dim)
    truth = model.log_likelihood(x)
    path = {"temperatures": aevb.sigmoid_temperatures(6), "step_size": 0.4}
    posterior, decode = model.posterior, model.decode

    def both(key, x):
        z = posterior(x).sample(key)
        return (
            aevb.annealed_log_likelihood(posterior, decode, key, x, **path),
            aevb.reverse_annealed_log_likelihood(posterior, decode, key, x, z, **path),
        )

    for estimate in jax.jit(both)(jax.random.key(0), x):
        np.testing.assert_allclose(estimate.log_weights, truth, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(estimate.log_likelihood, truth, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(estimate.ess, 16, rtol=1e-5)
        assert estimate.std_error < 1e-3


def test_two_temperatures_reduce_to_importance_sampling():
    encode = lambda x: standard_normal(2)  # noqa: E731
    key = jax.random.key(1)
    run = partial(
        aevb.annealed_log_likelihood,
        encode,
        LINEAR.decode,
        temperatures=jnp.array([0.0, 1.0]),
        num_chains=5,
    )
    estimate = jax.jit(run)(key, X)

    def log_weight(chain):
        start_key, _ = jax.random.split(jax.random.fold_in(key, chain))
        return aevb.log_weight(encode, LINEAR.decode, start_key, X)

    log_w = jax.jit(jax.vmap(log_weight))(jnp.arange(5))
    np.testing.assert_allclose(estimate.log_weights, log_w, rtol=1e-5)
    np.testing.assert_allclose(
        estimate.log_likelihood, jax.nn.logsumexp(log_w) - jnp.log(5.0), rtol=1e-6
    )


def linear_problem(latent_dim):
    model = linear_model(6, latent_dim)
    return model.decode, X, model.log_likelihood(X)


def bernoulli_problem(latent_dim):
    decode = testing.bernoulli_decoder(
        jax.random.key(latent_dim), latent_dim=latent_dim, data_dim=8, scale=1.0
    )
    x = decode(jnp.full(latent_dim, 0.7)).sample(jax.random.key(5))
    num_points = 61 if latent_dim == 3 else 201
    run = partial(
        aevb.quadrature, latent_dim=latent_dim, num_points=num_points, limit=6.0
    )
    return decode, x, jax.jit(partial(run, decode))(x).log_likelihood


@pytest.mark.parametrize(
    ("problem", "latent_dim", "step_size"),
    [
        (linear_problem, 2, None),
        (linear_problem, 5, None),
        (bernoulli_problem, 1, 0.5),
        (bernoulli_problem, 2, 0.5),
        (bernoulli_problem, 3, 0.5),
    ],
)
def test_the_expected_weight_is_p_of_x(problem, latent_dim, step_size, z_score):
    decode, x, truth = problem(latent_dim)
    estimate = jax.jit(
        partial(
            aevb.annealed_log_likelihood,
            lambda x: standard_normal(latent_dim),
            decode,
            temperatures=aevb.sigmoid_temperatures(30),
            num_chains=4000,
            num_leapfrog_steps=5,
            step_size=step_size,
        )
    )(jax.random.key(2), x)
    relative = jnp.exp(estimate.log_weights - truth)
    assert abs(z_score(relative, 1.0)) < 3
    assert abs(estimate.log_likelihood - truth) < 3 * estimate.std_error
    # Lower bounds of 4 chains each are below the truth in the mean.
    groups = jax.nn.logsumexp(estimate.log_weights.reshape(-1, 4), axis=1)
    assert z_score(groups - jnp.log(4.0), truth) < 4
    # Three standard errors are a strong statement: the error itself is small.
    assert estimate.std_error < 0.05


@pytest.fixture(scope="module")
def sandwiches():
    """400 simulated datapoints, at two lengths of the schedule."""
    prior = standard_normal(2)

    def run(num_temperatures):
        one = partial(
            aevb.bdmc,
            lambda x: prior,
            LINEAR.decode,
            prior=prior,
            temperatures=aevb.linear_temperatures(num_temperatures),
            num_chains=4,
            num_leapfrog_steps=5,
        )
        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), 400))

    return {num: run(num) for num in (10, 100)}


@pytest.mark.parametrize("num_temperatures", [10, 100])
def test_sandwich_holds_the_truth(sandwiches, num_temperatures, z_score):
    sandwich = sandwiches[num_temperatures]
    truth = jax.vmap(LINEAR.log_likelihood)(sandwich.x)
    assert z_score(sandwich.lower.log_likelihood - truth, 0.0) < 4
    assert z_score(sandwich.upper.log_likelihood - truth, 0.0) > -4
    # E[w] = p(x) forward, E[1/w] = 1/p(x) in reverse.
    forward = jnp.exp(sandwich.lower.log_weights - truth[:, None])
    reverse = jnp.exp(truth[:, None] - sandwich.upper.log_weights)
    assert abs(z_score(jnp.mean(forward, axis=1), 1.0)) < 4.9
    assert abs(z_score(jnp.mean(reverse, axis=1), 1.0)) < 4.9


def test_sandwich_closes_with_temperatures(sandwiches):
    gap = {
        num: float(jnp.mean(s.upper.log_likelihood - s.lower.log_likelihood))
        for num, s in sandwiches.items()
    }
    assert gap[100] > 0
    assert gap[100] < gap[10] / 3
    assert gap[100] < 0.3


def test_preliminary_run_reaches_the_acceptance(sandwiches):
    for estimate in (sandwiches[100].lower, sandwiches[100].upper):
        assert 0.55 < jnp.mean(estimate.acceptance) < 0.8
    sizes = jax.jit(
        partial(
            aevb.annealing_step_sizes,
            lambda x: standard_normal(2),
            LINEAR.decode,
            temperatures=aevb.linear_temperatures(20),
        )
    )(jax.random.key(0), X)
    assert sizes.shape == (18,)
    assert jnp.all((sizes >= 1e-4) & (sizes <= 0.5))


def test_adaptation_along_the_chain():
    run = jax.jit(
        partial(
            aevb.annealed_log_likelihood,
            lambda x: standard_normal(2),
            LINEAR.decode,
            temperatures=aevb.linear_temperatures(1000),
            num_leapfrog_steps=3,
            step_size=0.01,
            adapt=aevb.nudge_step_size,
        )
    )
    estimate = run(jax.random.key(4), X)
    assert 0.6 < estimate.acceptance < 0.8  # it begins at 1, with the smallest steps
    assert abs(estimate.log_likelihood - LINEAR.log_likelihood(X)) < 0.1


def test_schedules_go_from_zero_to_one():
    for schedule in (aevb.linear_temperatures, aevb.sigmoid_temperatures):
        values = schedule(100)
        assert values.shape == (100,)
        assert values[0] == 0
        assert values[-1] == 1
        assert jnp.all(jnp.diff(values) > 0)
    middle = jnp.diff(aevb.sigmoid_temperatures(101))
    assert middle[50] > 10 * middle[0]


def test_what_is_not_a_schedule_is_refused():
    run = partial(
        aevb.annealed_log_likelihood,
        lambda x: standard_normal(2),
        LINEAR.decode,
        jax.random.key(0),
        X,
    )
    for bad in (jnp.linspace(0.1, 1, 5), jnp.linspace(1, 0, 5), jnp.array([0, 2, 1.0])):
        with pytest.raises(ValueError, match="expected to increase from 0 to 1"):
            run(temperatures=bad)
    for bad in (jnp.zeros(1), jnp.zeros(())):
        with pytest.raises(ValueError, match="sigmoid_temperatures"):
            run(temperatures=bad)
    with pytest.raises(ValueError, match="num_chains is 0"):
        run(temperatures=aevb.linear_temperatures(5), num_chains=0)


def test_rows_of_a_vmap_are_the_single_calls():
    run = partial(
        aevb.annealed_log_likelihood,
        LINEAR.best_encode,
        LINEAR.decode,
        temperatures=aevb.linear_temperatures(8),
        num_chains=3,
        step_size=0.2,
    )
    keys = jax.random.split(jax.random.key(8), 3)
    xs = jnp.stack([X, X + 1, -X])
    batch = jax.jit(jax.vmap(run))(keys, xs)
    single_run = jax.jit(run)
    for row in range(3):
        single = single_run(keys[row], xs[row])
        for name, value in single._asdict().items():
            np.testing.assert_allclose(
                getattr(batch, name)[row], value, rtol=1e-4, err_msg=name
            )
