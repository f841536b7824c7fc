"""Everything lowers for accelerators that this machine does not have."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from family_cases import CASES
from jax import export

import aevb
from aevb import nets

NUM_DATAPOINTS, DATA_DIM, LATENT_DIM = 40, 12, 2
KEY = jax.random.key(0)
PIXELS = np.random.default_rng(0).integers(0, 256, (NUM_DATAPOINTS, DATA_DIM), np.uint8)
MODEL = nets.linen_model(
    nets.GaussianMLP(LATENT_DIM, (8,), dot_general=nets.bfloat16_dot_general),
    nets.BernoulliMLP(DATA_DIM, (8,), dot_general=nets.bfloat16_dot_general),
)

DEVICE_CALLS = {"cu_threefry2x32_ffi", "Sharding"}  # which some versions of JAX make


def binarize(key, pixels):
    """x = 1 with probability pixel / 255, from random bytes."""
    return (jax.random.bits(key, pixels.shape, jnp.uint8) < pixels).astype(jnp.float32)


def make_algorithm(learning_rate):
    def bound(params, key, x):
        args = partial(MODEL.encode, params), partial(MODEL.decode, params)
        elbo = aevb.elbo(*args, key, x)
        return elbo.value, elbo

    objective = aevb.map_objective(
        bound, num_datapoints=NUM_DATAPOINTS, log_prior=aevb.log_weight_prior
    )
    return aevb.gradient_algorithm(objective, optax.adam(learning_rate))


def full_bayes(key, params, pixels):
    """An update with noise of activations, and the predictive log p(x) after it."""

    def bound(params, key, x):
        args = partial(MODEL.encode, params), partial(MODEL.decode, params)
        return aevb.elbo(*args, key, x).value, None

    options = {"reparameterization": nets.local_reparameterization}
    of_one = aevb.full_bayes_objective(bound, num_datapoints=NUM_DATAPOINTS, **options)
    objective = aevb.map_objective(of_one, num_datapoints=NUM_DATAPOINTS)
    algorithm = aevb.gradient_algorithm(objective, optax.adam(1e-3))
    xs = binarize(key, pixels)
    state, _ = algorithm.update(key, algorithm.init(params), xs)
    predictive = aevb.predictive_model(MODEL, xs[0], **options)
    return aevb.importance_log_likelihood(
        partial(predictive.encode, state.params),
        partial(predictive.decode, state.params),
        key,
        xs[0],
        prior=predictive.prior(state.params),
        num_samples=20,
    )


def init(key):
    return MODEL.init(key, jnp.zeros(DATA_DIM))


def one_epoch(key, state, pixels):
    algorithm = make_algorithm(1e-3)
    return aevb.epoch(algorithm, key, state, pixels, batch_size=10, transform=binarize)


def runs(keys, learning_rates, pixels):
    def run(key, learning_rate):
        return aevb.fit(
            make_algorithm(learning_rate),
            key,
            init(key),
            pixels,
            num_epochs=2,
            batch_size=10,
            transform=binarize,
        )

    return jax.vmap(jax.vmap(run, (0, None)), (None, 0))(keys, learning_rates)


def log_likelihoods(key, params, xs):
    estimate = partial(
        aevb.importance_log_likelihood,
        partial(MODEL.encode, params),
        partial(MODEL.decode, params),
        num_samples=50,
        chunk_size=20,
    )
    return jax.vmap(estimate)(jax.random.split(key, len(xs)), xs)


def families(key, columns):
    """Each family's draws, densities and gradients, in one program."""

    def total(columns):
        sums = []
        for case, parameters in zip(CASES.values(), columns, strict=True):
            q = case.make(*parameters)
            z = q.sample(key)
            sums.append(jnp.sum(z) + q.log_prob(z))
        a = columns[0][0]
        for q in (
            aevb.reparameterizations.Dirichlet(a),
            aevb.reparameterizations.Elliptical(
                a,
                jnp.diag(a),
                aevb.reparameterizations.Exponential(a[0]),
            ),
        ):
            z = q.sample(key)
            sums.append(jnp.sum(z) + q.log_prob(z))
        return sum(sums)

    return jax.value_and_grad(total)(columns)


def arguments(function):
    match function.__name__:
        case "one_epoch":
            return KEY, make_algorithm(1e-3).init(init(KEY)), PIXELS
        case "runs":
            return jax.random.split(KEY, 2), jnp.array([1e-3, 1e-2]), PIXELS
        case "families":
            return KEY, [case.parameters(np.float32) for case in CASES.values()]
        case "log_likelihoods":
            return KEY, init(KEY), (PIXELS[:3] > 127).astype(np.float32)
        case "full_bayes":
            params = init(KEY)
            posterior = aevb.weight_posterior(params["decoder"], scale=0.1)
            return KEY, params | {"decoder": posterior}, PIXELS


@pytest.mark.parametrize(
    "function", [one_epoch, runs, log_likelihoods, full_bayes, families]
)
def test_programs_lower_for_tpu_and_cuda_without_the_host(function, standard_promotion):
    exported = export.export(jax.jit(function), platforms=["tpu", "cuda"])(
        *jax.eval_shape(lambda: arguments(function))
    )
    assert exported.platforms == ("tpu", "cuda")
    text = exported.mlir_module()
    assert "callback" not in text
    assert set(re.findall(r"custom_call @(\w+)", text)) <= DEVICE_CALLS
    for host in ("infeed", "outfeed", "stablehlo.send", "stablehlo.recv"):
        assert host not in text
