"""The kernels that move z and x: identities, laws, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_answers import (
    EXACT,
    KERNELS,
    LATENT_DIM,
    OBSERVED,
    WRONG,
    linear_case,
    linear_kernel,
    steps,
)
from jax import export

import aevb
from aevb.records import record

LINEAR = linear_case("masked")


def first_step(kernel, num_chains, key):
    init_key, key = jax.random.split(key)
    return kernel.step(key, kernel.init(init_key, jnp.zeros((num_chains, 4))))


# Identities.


def test_the_exact_encoder_is_never_refused_and_makes_the_pseudo_gibbs_chain():
    (exact, info), (pseudo, _) = (
        jax.jit(partial(first_step, linear_kernel(name, EXACT, LINEAR.y, LINEAR), 200))(
            jax.random.key(4)
        )
        for name in ("Metropolis", "pseudo-Gibbs")
    )
    np.testing.assert_allclose(info.acceptance, 1, rtol=1e-5)
    np.testing.assert_allclose(exact.zs, pseudo.zs, rtol=1e-5)


def of_y(x):
    """p(z|y), whatever x."""
    del x
    return LINEAR.of_y.encode(LINEAR.measured(LINEAR.y))


def test_the_collapsed_chain_accepts_what_comes_from_the_posterior_of_y():
    kernel = aevb.collapsed_metropolis_within_gibbs(
        of_y, LINEAR.decode, LINEAR.observe, LINEAR.y,
        prior=LINEAR.prior, prior_share=1e-7,
    )  # fmt: skip
    _, info = jax.jit(partial(first_step, kernel, 100))(jax.random.key(5))
    np.testing.assert_allclose(info.acceptance, 1, rtol=1e-4)


@record
class Certain:
    """z is x; of a constant density, so that it is always accepted."""

    z: jax.Array

    def sample(self, key):
        return self.z

    def log_prob(self, z):
        return jnp.zeros(())


def test_the_halves_move_in_turn():
    kernel = aevb.collapsed_metropolis_within_gibbs(
        Certain, lambda z: LINEAR.prior, aevb.masked(jnp.zeros(2, bool)), jnp.zeros(2),
        prior=Certain(jnp.zeros(2)), prior_share=1e-9,
    )  # fmt: skip
    start = jax.jit(kernel.init)(jax.random.key(10), jnp.zeros((2, 2)))
    end, info = jax.jit(kernel.step)(jax.random.key(11), start)
    np.testing.assert_array_equal(info.acceptance, 1)
    np.testing.assert_array_equal(end.zs, [start.xs[1], end.xs[0]])


def test_resampling_from_the_posterior_of_y_has_equal_weights():
    kernel = aevb.latent_adaptive_resampling(
        of_y, LINEAR.decode, LINEAR.observe, LINEAR.y, prior=LINEAR.prior, num_prior=0
    )
    _, info = jax.jit(partial(first_step, kernel, 100))(jax.random.key(6))
    np.testing.assert_allclose(info.ess, 100, rtol=1e-4)
    np.testing.assert_array_equal(info.acceptance, 1)


# Laws.


@pytest.mark.parametrize("name", KERNELS)
def test_a_row_of_a_vmap_is_the_single_call(name):
    def run(key, y):
        chains, info = first_step(linear_kernel(name, WRONG, y, LINEAR), 4, key)
        return chains.zs, chains.xs, info

    keys = jax.random.split(jax.random.key(7), 3)
    ys = LINEAR.y[None] + jnp.arange(3.0)[:, None]
    rows = jax.jit(jax.vmap(run))(keys, ys)
    singles = [jax.jit(run)(keys[1], ys[1])]
    if name == "Metropolis":
        singles.append(run(keys[1], ys[1]))  # not compiled
    for single in singles:
        for row, value in zip(*map(jax.tree.leaves, (rows, single)), strict=True):
            np.testing.assert_allclose(row[1], value, rtol=2e-4, atol=2e-5)


def test_thinning_by_two_takes_every_second_draw_of_the_same_chain():
    kernel = linear_kernel("Metropolis", WRONG, LINEAR.y, LINEAR)

    @jax.jit
    def run(key):
        run = partial(aevb.sample_imputations, kernel, key, jnp.zeros((5, 4)))
        every = run(num_burn_in=3, num_samples=12)
        second = run(num_burn_in=3, num_samples=6, thinning=2)
        judged = aevb.split_r_hat(every.zs), aevb.effective_sample_size(every.zs)
        return every, second, judged

    every, second, (r_hat, ess) = run(jax.random.key(8))
    assert every.zs.shape == (5, 12, LATENT_DIM)
    assert every.xs.shape == (5, 12, 4)
    np.testing.assert_allclose(second.zs, every.zs[:, 1::2], rtol=1e-4)
    np.testing.assert_allclose(second.xs, every.xs[:, 1::2], rtol=1e-4)
    np.testing.assert_allclose(second.acceptance, every.acceptance, rtol=1e-4)
    np.testing.assert_allclose(every.r_hat, r_hat, rtol=1e-5)
    np.testing.assert_allclose(every.ess, ess, rtol=1e-5)
    assert jnp.isnan(every.weight_ess)
    seen = np.broadcast_to(LINEAR.y[OBSERVED], (5, 12, 2))
    np.testing.assert_array_equal(every.xs[..., OBSERVED], seen)


def test_z_and_x_may_be_pytrees(z_score):
    """Two models of one z and two x: an exact encoder, given one x of the two."""
    tree = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.array([jnp.nan, -2.0])}
    decode = lambda z: aevb.DiagNormal(  # noqa: E731
        jax.tree.map(lambda leaf: jnp.tile(leaf, 2), z), {"a": 0.0, "b": 0.0}
    )

    def encode(x):
        loc = jax.tree.map(lambda leaf: jnp.sum(leaf, keepdims=True) / 3, x)
        return aevb.DiagNormal(loc, jax.tree.map(lambda _: -jnp.log(3.0) / 2, x))

    observe = aevb.masked(jax.tree.map(lambda leaf: ~jnp.isnan(leaf), tree))
    kernel = KERNELS["collapsed"](None, encode, decode, observe, tree)

    def one(key):
        init_key, key = jax.random.split(key)
        starts = jax.tree.map(lambda leaf: jnp.zeros((40, *leaf.shape)), tree)
        chains, _ = steps(kernel, key, kernel.init(init_key, starts), 20)
        return chains.zs, chains.xs

    zs, xs = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(9), 200))
    for draws, mean, variance in (
        (zs["a"][..., 0], 0.5, 0.5),
        (zs["b"][..., 0], -1.0, 0.5),
        (xs["a"][..., 1], 0.5, 1.5),
        (xs["b"][..., 0], -1.0, 1.5),
    ):
        assert abs(z_score(jnp.mean(draws, axis=1), mean)) < 4.9
        assert abs(z_score(jnp.mean((draws - mean) ** 2, axis=1), variance)) < 4.9


@pytest.mark.parametrize("name", KERNELS)
def test_a_step_lowers_for_tpu_and_cuda(name):
    def run(data, y):
        kernel = linear_kernel(name, WRONG, y, LINEAR)
        return first_step(kernel, 4, jax.random.wrap_key_data(data))

    exported = export.export(jax.jit(run), platforms=["tpu", "cuda"])(
        jnp.zeros(2, jnp.uint32), jnp.zeros(4)
    )
    assert "callback" not in exported.mlir_module()


# Errors.


def blurred(p):
    """p(y|z) of a function alone."""
    return p


@pytest.mark.parametrize("name", KERNELS)
def test_a_channel_without_restore_is_named(name):
    with pytest.raises(TypeError, match=r"observe is blurred, which has no restore"):
        KERNELS[name](None, LINEAR.of_x.encode, LINEAR.decode, blurred, LINEAR.y)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_of_none_or_all_is_refused(share):
    with pytest.raises(ValueError, match=f"prior_share is {share}, expected strictly"):
        aevb.collapsed_metropolis_within_gibbs(
            LINEAR.of_x.encode, LINEAR.decode, LINEAR.observe, LINEAR.y,
            prior_share=share,
        )  # fmt: skip


def test_fewer_draws_than_have_an_effective_number_are_refused():
    kernel = linear_kernel("Metropolis", EXACT, LINEAR.y, LINEAR)
    with pytest.raises(ValueError, match=r"num_samples is 3, expected .* 4"):
        aevb.sample_imputations(
            kernel, jax.random.key(0), jnp.zeros((2, 4)), num_samples=3, num_burn_in=0
        )


def test_one_chain_has_no_other_to_propose_for_it():
    kernel = linear_kernel("collapsed", EXACT, LINEAR.y, LINEAR)
    with pytest.raises(ValueError, match="there is 1 chain, expected 2 or more"):
        jax.eval_shape(partial(first_step, kernel, 1), jax.random.key(0))


@pytest.mark.parametrize("name", KERNELS)
def test_what_is_no_distribution_is_named(name):
    def start(encode, decode):
        kernel = KERNELS[name](None, encode, decode, LINEAR.observe, LINEAR.y)
        return jax.eval_shape(kernel.init, jax.random.key(0), jnp.zeros((2, 4)))

    with pytest.raises(TypeError, match=r"decode\(z\) returned .*, which has no"):
        start(LINEAR.of_x.encode, lambda z: z)
    with pytest.raises(TypeError, match=r"encode\(x\) returned .*, which has no"):
        start(lambda x: x, LINEAR.decode)
