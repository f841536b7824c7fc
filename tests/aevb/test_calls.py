"""Every count of the public functions goes through one check."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aevb
from aevb import baselines, testing
from aevb.calls import check_count
from aevb.marginal.diagnostics import tail_size

KEY, X, Z = jax.random.key(0), jnp.zeros(3), jnp.zeros(2)
MODEL = testing.linear_gaussian(jnp.ones((3, 2)), jnp.zeros(3), 0.0)
PAIR = (MODEL.best_encode, MODEL.decode, KEY)
PATH = {"temperatures": aevb.linear_temperatures(4)}
STEP = {"step_size": 0.1}
PATHS = {**PATH, **STEP, "step_size_y": 0.1}
SGD = optax.sgd(0.1)
NETWORKS = aevb.Model(
    init=lambda key, x: None,
    encode=lambda params, x: MODEL.best_encode(x),
    decode=lambda params, z: MODEL.decode(z),
)
PRIOR = aevb.prior_or_normal(None, Z)
NORMAL = [lambda z: -0.5 * z @ z]
OBSERVE = aevb.masked(jnp.array([True, True, False]))
KERNEL = aevb.metropolis_within_gibbs(MODEL.best_encode, MODEL.decode, OBSERVE, X)
CONDITIONAL = (MODEL.best_encode, MODEL.best_encode, MODEL.decode, OBSERVE, KEY)
HMC = partial(aevb.hmc_step, NORMAL, jnp.ones(1), KEY, aevb.point_at(NORMAL, Z), 0.1)


def resampled_step(num_prior):
    """One of the kernel, which begins with two chains."""
    kernel = aevb.latent_adaptive_resampling(
        MODEL.best_encode, MODEL.decode, OBSERVE, X, num_prior=num_prior
    )
    return kernel.step(KEY, kernel.init(KEY, jnp.zeros((2, 3))))


# The function, with all that is not a count; its counts, with values that work.
CALLS = {
    "elbo": (partial(aevb.elbo, *PAIR, X), {"num_samples": 2}),
    "elbo_generic": (partial(aevb.elbo_generic, *PAIR, X), {"num_samples": 2}),
    "iwae": (partial(aevb.iwae, *PAIR, X), {"num_samples": 2}),
    "importance_log_likelihood": (
        partial(aevb.importance_log_likelihood, *PAIR, X),
        {"num_samples": 3, "chunk_size": 2},
    ),
    "annealed_log_likelihood": (
        partial(aevb.annealed_log_likelihood, *PAIR, X, **PATH, **STEP),
        {"num_chains": 2, "num_leapfrog_steps": 2},
    ),
    "reverse_annealed_log_likelihood": (
        partial(aevb.reverse_annealed_log_likelihood, *PAIR, X, Z, **PATH, **STEP),
        {"num_chains": 2, "num_leapfrog_steps": 2},
    ),
    "annealing_step_sizes": (
        partial(aevb.annealing_step_sizes, *PAIR, X, **PATH),
        {"num_leapfrog_steps": 2},
    ),
    "bdmc": (
        partial(aevb.bdmc, *PAIR, prior=PRIOR, **PATH, **STEP),
        {"num_chains": 2, "num_leapfrog_steps": 2},
    ),
    "sample_posterior": (
        partial(aevb.sample_posterior, MODEL.decode, KEY, X, jnp.zeros((2, 2))),
        {"num_samples": 4, "num_burn_in": 2, "num_leapfrog_steps": 2, "thinning": 2},
    ),
    "weighted_draws": (partial(aevb.weighted_draws, *PAIR, X), {"num_samples": 3}),
    "resample": (partial(aevb.resample, KEY, X, X), {"num_samples": 2}),
    "latent_adaptive_resampling": (resampled_step, {"num_prior": 2}),
    "sample_imputations": (
        partial(aevb.sample_imputations, KERNEL, KEY, jnp.zeros((2, 3))),
        {"num_samples": 4, "num_burn_in": 2, "thinning": 2},
    ),
    "conditional_log_likelihood": (
        partial(aevb.conditional_log_likelihood, *CONDITIONAL, X, X, **PATHS),
        {"num_chains": 2, "num_leapfrog_steps": 2},
    ),
    "conditional_bdmc": (
        partial(aevb.conditional_bdmc, *CONDITIONAL, prior=PRIOR, **PATHS),
        {"num_chains": 2, "num_leapfrog_steps": 2},
    ),
    "hmc_step": (HMC, {"num_leapfrog_steps": 2}),
    "e_step": (
        partial(baselines.e_step, MODEL.decode, KEY, X, Z, 0.1),
        {"num_leapfrog_steps": 2},
    ),
    "wake_sleep": (
        partial(baselines.wake_sleep, NETWORKS, SGD),
        {"num_datapoints": 80},
    ),
    "mcem": (
        partial(baselines.mcem, lambda params, z: MODEL.decode(z), SGD, Z[None]),
        {"num_leapfrog_steps": 2, "num_weight_updates": 2, "chunk_size": 2},
    ),
    "quadrature": (
        partial(aevb.quadrature, MODEL.decode, X),
        {"latent_dim": 2, "num_points": 5},
    ),
    "optimize_posterior": (
        partial(
            aevb.optimize_posterior,
            MODEL.decode,
            KEY,
            X,
            PRIOR,
            optimizer=optax.sgd(0.1),
        ),
        {"num_steps": 2, "num_samples": 2},
    ),
    "map_datapoints": (
        partial(aevb.map_datapoints, lambda key, x: x, KEY, X),
        {"batch_size": 2},
    ),
    "bits_per_dim": (
        partial(aevb.bits_per_dim, jnp.zeros(())),
        {"num_dims": 3, "levels": 256},
    ),
    "curve_sizes": (aevb.curve_sizes, {"num_samples": 20}),
    "tail_size": (tail_size, {"num_samples": 20}),
    "pareto_k": (partial(aevb.pareto_k, jnp.zeros(30)), {"num_samples": 30}),
    "linear_temperatures": (aevb.linear_temperatures, {"num_temperatures": 4}),
    "sigmoid_temperatures": (aevb.sigmoid_temperatures, {"num_temperatures": 4}),
    "numerical_inverse_cdf": (
        partial(
            aevb.numerical_inverse_cdf,
            jax.scipy.stats.norm.cdf,
            jax.scipy.stats.norm.logpdf,
            bracket=(-9.0, 9.0),
        ),
        {"num_steps": 3},
    ),
    "full_bayes_objective": (
        partial(aevb.full_bayes_objective, lambda w, key, x: (w, None)),
        {"num_datapoints": 3, "num_weight_samples": 2},
    ),
    "evidence_bound": (
        partial(aevb.evidence_bound, Z, jnp.zeros(())),
        {"num_datapoints": 3},
    ),
    "bernoulli_decoder": (
        partial(testing.bernoulli_decoder, KEY),
        {"latent_dim": 2, "data_dim": 3},
    ),
}
COUNTS = [(name, count) for name, (_, counts) in CALLS.items() for count in counts]


@pytest.mark.parametrize("bad", [2.5, 0, -1, True, np.float32(3), jnp.array(3)])
@pytest.mark.parametrize(("name", "count"), COUNTS)
def test_what_is_no_count_is_refused(name, count, bad):
    if count in ("num_burn_in", "num_prior") and bad == 0:
        return  # None is as good as some.
    function, counts = CALLS[name]
    with pytest.raises(ValueError, match=rf"{count} is \S+, expected .* pass a"):
        jax.eval_shape(lambda: function(**{**counts, count: bad}) and None)


@pytest.mark.parametrize("name", CALLS)
def test_an_integer_of_numpys_is_a_count(name):
    """The arithmetic stays that of Python integers: strict promotion would object."""
    function, counts = CALLS[name]
    outputs = []
    for integer in (int, np.int64):
        converted = {count: integer(value) for count, value in counts.items()}
        outputs.append(jax.eval_shape(lambda c=converted: arrays_of(function(**c))))
    assert outputs[0] == outputs[1]


def arrays_of(value):
    return [leaf for leaf in jax.tree.leaves(value) if isinstance(leaf, jax.Array)]


def test_no_count_of_a_public_function_is_left_out():
    """What is called a count, in any function of these modules, is in the table."""
    words = ("num_", "chunk_size", "batch_size", "thinning", "latent_dim", "data_dim")
    elsewhere = ("aevb.train", "aevb.objectives")  # and in the tests of those
    everything = {name: getattr(aevb, name) for name in aevb.__all__}
    everything |= {name: getattr(baselines, name) for name in baselines.__all__}
    for public, function in everything.items():
        if not inspect.isfunction(function) or function.__module__ in elsewhere:
            continue
        named = {
            name
            for name in inspect.signature(function).parameters
            if name.startswith(words)
        }
        assert named <= set(CALLS.get(public, (None, {}))[1]), public


def test_a_fractional_number_of_samples_was_a_wrong_number():
    """log p(x) is -1.266: 2.5 samples gave -1.083 without a word."""
    encode = lambda x: aevb.DiagNormal(x / 2, jnp.full(1, -0.5 * jnp.log(2.0)))  # noqa: E731
    decode = lambda z: aevb.DiagNormal(z, jnp.zeros(1))  # noqa: E731
    with pytest.raises(ValueError, match=r"num_samples is 2\.5, expected an integer"):
        aevb.importance_log_likelihood(
            encode, decode, KEY, jnp.zeros(1), num_samples=2.5
        )


def test_a_traced_count_is_told_to_be_static():
    with pytest.raises(ValueError, match="static_argnames"):
        jax.jit(lambda num: aevb.iwae(*PAIR, X, num_samples=num))(5)


def test_a_count_comes_back_as_a_python_integer():
    for value in (3, np.int64(3), np.uint8(3)):
        assert type(check_count("count", value)) is int
    assert check_count("count", 0, least=0) == 0
    with pytest.raises(ValueError, match="count is 1, expected an integer of at least"):
        check_count("count", 1, least=2)
