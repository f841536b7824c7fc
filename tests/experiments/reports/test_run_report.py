"""The end of a run: what its page says and shows, what its samples are drawn from."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small

import aevb
from experiments.evaluation.bounds import BoundEvaluation
from experiments.evaluation.probes import Probes
from experiments.reports.run import _prior_samples, write_run_report
from experiments.training.result import Result


def a_result(prior=None, **changes) -> Result:
    """Of a decoder that shows z_1 as the grey of 3 x 2 pixels; nothing is trained."""
    config = small(**changes)
    rng = np.random.default_rng(0)
    means = rng.normal(size=(30, config.latent_dim)).astype(np.float32)
    program = SimpleNamespace(
        model=SimpleNamespace(
            prior=lambda params: prior,
            decode=lambda params, z: aevb.Bernoulli(jnp.full(6, z[0])),
        ),
        test=rng.integers(0, 2, (30, 6), np.uint8),
        to_input=lambda x: x.astype(jnp.float32),
    )
    dataset = SimpleNamespace(
        name="fake", image_shape=(3, 2), test=SimpleNamespace(labels=np.arange(30) % 3)
    )
    lines = [
        {"samples": 320.0 * i, "train/bound": -5.0 / i, "valid/bound": -5.5 / i}
        for i in (1, 2, 3)
    ]
    number = jnp.asarray(1.0)
    test = BoundEvaluation(
        bound=-number,
        std_error=number,
        reconstruction=-number,
        kl=number,
        kl_per_dim=jnp.ones(config.latent_dim),
        active_units=jnp.asarray(1),
        means=means,
    )
    return Result(
        config=config,
        dataset=dataset,
        program=program,
        params=None,
        metrics=lines,
        test=test,
        likelihood=None,
        probes=Probes(0.9, 0.95, 100, 400),
        timings={"total_seconds": 2.0},
    )


def write(result: Result, workdir) -> tuple[str, set[str]]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        page = write_run_report(result, workdir).read_text()
    return page, {file.stem for file in (workdir / "figures").iterdir()}


def test_the_page_says_at_which_precision_its_numbers_were_computed(tmp_path):
    changes = {"precision": "bfloat16", "eval.precision": "float32"}
    page, _ = write(a_result(**changes), tmp_path)
    assert "bfloat16 in training and in the bound, float32 in log p(x)" in page
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert numbers["test_bound"] == -1
    assert numbers["probes"]["nearest"] == 0.95
    assert "90.0 ± 1.5" in page  # of 400 test images


def test_the_manifold_is_drawn_of_the_standard_normal_in_two_dimensions(tmp_path):
    every = {
        "learning_curve", "reconstructions", "samples", "kl_per_dimension",
        "latent_space", "manifold",
    }  # fmt: skip
    _, names = write(a_result(), tmp_path)
    assert names == every
    assert write(a_result(latent_dim=3), tmp_path / "3")[1] == every - {"manifold"}
    # Its grid goes through the inverse normal CDF: of another prior it would be wrong.
    prior = aevb.DiagNormal(jnp.ones(2), jnp.zeros(2))
    assert write(a_result(prior), tmp_path / "p")[1] == every - {"manifold"}


def test_samples_are_drawn_from_the_models_prior():
    prior = aevb.DiagNormal(jnp.array([100.0, -3.0]), jnp.array([0.0, -5.0]))
    zs = _prior_samples(a_result(prior), 50)
    assert zs.shape == (50, 2)
    np.testing.assert_allclose(zs.mean(axis=0), [100.0, -3.0], atol=1)
    assert zs[:, 1].std() < 0.1
    standard = _prior_samples(a_result(), 50)
    np.testing.assert_allclose(zs[:, 0] - 100, standard[:, 0], atol=1e-4)


def test_samples_use_no_key_of_the_run():
    """They are the same for every seed; the run's own root key has other uses."""
    zs = _prior_samples(a_result(seed=0), 100)
    np.testing.assert_array_equal(zs, _prior_samples(a_result(seed=1), 100))
    assert (zs != jax.random.normal(jax.random.key(0), (100, 2))).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.binarization": "dynamic"}, "drawn anew at each presentation"),
        ({"data.binarization": "static"}, "255, drawn once with a fixed key"),
        ({"data.binarization": "grey", "eval.num_samples": 0}, "no log p(x)"),
        (
            {
                "likelihood": "gaussian",
                "data.binarization": "grey",
                "output_bias_from_data": False,
            },
            "A density over",
        ),
    ],
)
def test_the_page_says_what_the_pixels_are(tmp_path, changes, words):
    page, _ = write(a_result(**changes), tmp_path)
    assert words in page
