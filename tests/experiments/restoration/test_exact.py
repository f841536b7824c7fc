"""The truth on a grid: log p(x|y) and each pixel's mean, against other integrations."""

from functools import cache, partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logsumexp

import aevb
from experiments.restoration import exact, measures
from experiments.restoration.measures import Bundle, Model, problem_of
from experiments.restoration.tasks import make_tasks

SHAPE, NUM_IMAGES = (4, 3), 3
RATE = 0.2
TASKS = {
    "half": ("inpaint", {"masks": ["half"]}),
    "random": ("inpaint", {"masks": ["random:0.6"]}),
    "flipped": ("denoise", {"rates": [RATE]}),
}
each = pytest.mark.parametrize(
    ("latent_dim", "name"),
    [(1, "half"), (1, "flipped"), (2, "random"), (2, "flipped")],
)


class Case(NamedTuple):
    """What `exact_measures` said of a small model, and what it was asked.

    Attributes:
      found: its values, and the "mean" behind them.
      decode: z -> p(x|z).
      observes: the channel of each image.
      xs: `[n, D]`.
      ys: `[n, D]`.
      logits: `[M, D]` of a grid over z, in double precision.
      log_prior: `[M]` with the volume of a cell.
    """

    found: dict[str, Any]
    decode: Any
    observes: list[Any]
    xs: np.ndarray
    ys: np.ndarray
    logits: np.ndarray
    log_prior: np.ndarray


@cache
def case(latent_dim: int, name: str) -> Case:
    rng = np.random.default_rng(latent_dim)
    dim = int(np.prod(SHAPE))
    # A curved decoder, so that no posterior is near a Gaussian.
    params = {
        "straight": rng.normal(size=(dim, latent_dim)).astype(np.float32),
        "curved": 2 * rng.normal(size=(dim, latent_dim)).astype(np.float32),
        "bias": rng.normal(size=dim).astype(np.float32),
    }

    def decode(params, z):
        logits = params["straight"] @ z + params["curved"] @ jnp.sin(2 * z)
        return aevb.Bernoulli(logits + params["bias"])

    model = Model(
        model=aevb.Model(
            init=lambda key, x: params,
            encode=lambda params, x: aevb.DiagNormal(*jnp.zeros((2, latent_dim))),
            decode=decode,
        ),
        scale=255,
        binary=True,
    )
    task_name, changes = TASKS[name]
    settings = {"masks": [], "rates": [], "noises": [], "factors": []} | changes
    [task] = make_tasks([task_name], image_shape=SHAPE, binary=True, **settings)
    nothing = jnp.zeros(0)
    bundle = Bundle(params, task.arrays, nothing, nothing, nothing, nothing)
    keys = jax.random.split(jax.random.key(5), NUM_IMAGES)
    xs = jnp.asarray(rng.integers(0, 2, (NUM_IMAGES, dim)), jnp.float32)

    def with_mean(found, *arguments, **options):
        return measures.measures(found, *arguments, **options) | {"mean": found.mean}

    with mock.patch.object(exact, "measures", with_mean):
        found = exact.exact_measures(model, task, bundle, keys, xs)
    problems = [
        problem_of(model, task, bundle, jax.random.split(key)[0], x)[0]
        for key, x in zip(keys, xs, strict=True)
    ]
    axes = [np.linspace(-8, 8, 401 if latent_dim == 1 else 161)] * latent_dim
    zs = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=-1)
    weights = {key: value.astype(np.float64) for key, value in params.items()}
    logits = zs @ weights["straight"].T + np.sin(2 * zs) @ weights["curved"].T
    spacing = axes[0][1] - axes[0][0]
    log_prior = -(zs**2).sum(axis=1) / 2 - latent_dim * np.log(2 * np.pi) / 2
    return Case(
        found,
        partial(decode, params),
        [problem.observe for problem in problems],
        np.asarray(xs, np.float64),
        np.stack([np.asarray(problem.y, np.float64) for problem in problems]),
        logits + weights["bias"],
        log_prior + latent_dim * np.log(spacing),
    )


def log_of(values: np.ndarray, p: np.ndarray) -> np.ndarray:
    """log of each pixel's probability."""
    return np.where(values == 1, np.log(p), np.log1p(-p))


def posterior(one: Case, name: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """P(x = 1|y) of each pixel `[D]`, and log p(x|y), of one image by definition."""
    p, x, y = expit(one.logits), one.xs[index], one.ys[index]
    joint = log_of(x, p)
    if name == "flipped":
        flipped = p + RATE - 2 * RATE * p
        log_y = log_of(y, flipped).sum(axis=1)
        # Of a pixel: P(x = 1) P(y|x = 1) over the sum.
        stays = np.where(y == 1, 1 - RATE, RATE)
        restored = p * stays / (p * stays + (1 - p) * (1 - stays))
        given = np.log(np.where(x == y, 1 - RATE, RATE)).sum()
    else:
        seen = np.asarray(one.observes[index].observed)
        log_y = joint[:, seen].sum(axis=1)
        restored, given = np.where(seen, y, p), 0.0
    weights = np.exp(log_y + one.log_prior - logsumexp(log_y + one.log_prior))
    log_x = logsumexp(joint.sum(axis=1) + one.log_prior)
    return weights @ restored, log_x + given - logsumexp(log_y + one.log_prior)


@each
def test_log_p_of_what_is_missing_is_that_of_quadrature(latent_dim, name):
    one = case(latent_dim, name)
    integrate = partial(aevb.quadrature, latent_dim=latent_dim, num_points=301)
    whole = jax.jit(lambda x: integrate(one.decode, x).log_likelihood)
    seen = jax.jit(
        lambda observe, y: integrate(lambda z: observe(one.decode(z)), y).log_likelihood
    )
    for index, observe in enumerate(one.observes):
        x, y = (jnp.asarray(a[index], jnp.float32) for a in (one.xs, one.ys))
        given = observe.given(x).log_prob(y)
        truth = float(whole(x) + given - seen(observe, y))
        assert one.found["log_prob"][index] == pytest.approx(truth, abs=1e-3)
        assert one.found["log_x"][index] == pytest.approx(float(whole(x)), abs=1e-3)
        assert truth < -1  # there was something to tell


@each
def test_each_pixel_s_mean_is_that_of_a_direct_integration(latent_dim, name):
    one = case(latent_dim, name)
    for index in range(NUM_IMAGES):
        mean, log_prob = posterior(one, name, index)
        np.testing.assert_allclose(one.found["mean"][index], mean, atol=2e-5)
        assert one.found["log_prob"][index] == pytest.approx(log_prob, abs=1e-3)
    assert one.found["mean"].std() > 0.1


@each
def test_the_measures_are_of_that_mean(latent_dim, name):
    one = case(latent_dim, name)
    for index, observe in enumerate(one.observes):
        target = np.ones(one.xs.shape[1], bool)
        if name != "flipped":
            target = ~np.asarray(observe.observed)
        mean, _ = posterior(one, name, index)
        mean, x = mean[target], one.xs[index][target]
        value = {key: values[index] for key, values in one.found.items()}
        assert value["num"] == target.sum()
        squared = ((mean - x) ** 2).sum()
        assert value["squared_error"] == pytest.approx(squared, abs=1e-3)
        assert value["log_loss"] == pytest.approx(-log_of(x, mean).sum(), abs=1e-3)
        assert value["wrong"] == ((mean > 0.5) != x).sum()
        assert value["bin_said"].sum() == pytest.approx(mean.sum(), abs=1e-3)


def test_independent_pixels_are_never_told_by_others():
    """With a decoder that does not look at z, p(x|y) is p(x) of what is missing."""
    dim = int(np.prod(SHAPE))
    logits = jnp.linspace(-2, 2, dim)
    model = Model(
        model=aevb.Model(
            init=lambda key, x: None,
            encode=lambda params, x: aevb.DiagNormal(*jnp.zeros((2, 1))),
            decode=lambda params, z: aevb.Bernoulli(logits + 0 * jnp.sum(z)),
        ),
        scale=255,
        binary=True,
    )
    [task] = make_tasks(
        ["inpaint"],
        image_shape=SHAPE,
        binary=True,
        masks=["half"],
        rates=[],
        noises=[],
        factors=[],
    )
    nothing = jnp.zeros(0)
    bundle = Bundle(None, task.arrays, nothing, nothing, nothing, nothing)
    x = (jnp.arange(dim) % 2).astype(jnp.float32)
    keys = jax.random.split(jax.random.key(0), 1)
    found = exact.exact_measures(model, task, bundle, keys, x[None])
    missing = np.arange(dim) >= dim // 2
    expected = np.asarray(aevb.Bernoulli(logits).log_probs(x))[missing].sum()
    assert found["log_prob"][0] == pytest.approx(expected, abs=1e-4)
    assert found["log_loss"][0] == pytest.approx(-expected, abs=1e-4)
