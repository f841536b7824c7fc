"""log p(x) of a whole test set, from many samples of some of its images."""

import json

import jax
import numpy as np
import pytest
from configurations import small

from experiments.evaluation.points import shown_nowhere
from experiments.evaluation.sampled import log_likelihood
from experiments.processes.interruption import StopRequest
from experiments.program import build, load_dataset

NUM_TEST = 300


@pytest.fixture(scope="module")
def program():
    config = small()
    dataset = load_dataset(config)
    images, labels = dataset.test.images[:NUM_TEST], dataset.test.labels[:NUM_TEST]
    test = dataset.test._replace(images=images, labels=labels)
    return build(config, dataset._replace(test=test))


@pytest.fixture(scope="module")
def params(program):
    return program.init(jax.random.key(0))


def measure(program, params, workdir, **changes):
    config = small(**{f"eval.{name}": value for name, value in changes.items()})
    with StopRequest() as stop:
        return log_likelihood(
            config, program, params, "data", workdir, stop, None, shown_nowhere
        )


def finished(workdir, name="log_likelihood"):
    """How many points are kept on the disk."""
    lines = (workdir / "evaluation" / f"{name}.jsonl").read_text().splitlines()
    return len({json.loads(line)["name"] for line in lines if line})


def test_the_mean_of_all_images_follows_from_some_of_them(program, params, tmp_path):
    every = measure(program, params, tmp_path / "all", num_points=0)
    assert every.whole is None
    truth = every.points.values["log_likelihood"]
    some = measure(program, params, tmp_path / "some", num_points=60, proxy_samples=3)
    points, whole = some
    assert points.indices.tolist() == list(range(0, NUM_TEST, 5))
    np.testing.assert_array_equal(
        points.values["log_likelihood"], truth[points.indices]
    )
    assert abs(float(whole.mean) - truth.mean()) < 4 * whole.std_error
    # The proxy shares most of what spreads the images.
    alone = points.values["log_likelihood"].std(ddof=1) / 60**0.5
    assert whole.std_error < alone / 2
    assert finished(tmp_path / "some") == 60
    assert finished(tmp_path / "some", "log_likelihood_proxy") == NUM_TEST


def test_points_are_added_until_the_error_is_as_asked_for(program, params, tmp_path):
    options = {"num_points": 0, "proxy_samples": 3}
    first = measure(program, params, tmp_path, std_error=0.2, **options)
    count = len(first.points.indices)
    assert 100 <= count < NUM_TEST
    assert first.whole.std_error <= 0.2
    # A smaller error adds points to those that are there.
    second = measure(program, params, tmp_path, std_error=0.05, **options)
    assert len(second.points.indices) > count
    assert second.whole is None or second.whole.std_error <= 0.05
    assert set(first.points.indices) <= set(second.points.indices)
    assert finished(tmp_path) == len(second.points.indices)


def test_no_more_points_than_allowed(program, params, tmp_path):
    found = measure(
        program, params, tmp_path, num_points=110, proxy_samples=3, std_error=1e-6
    )
    assert len(found.points.indices) == 110
    assert found.whole.std_error > 1e-6


def test_without_a_proxy_there_is_the_mean_of_the_points_alone(
    program, params, tmp_path
):
    for samples in (0, 10, 50):  # none; not fewer than the ten of every point
        found = measure(program, params, tmp_path, num_points=20, proxy_samples=samples)
        assert found.whole is None
    assert not (tmp_path / "evaluation" / "log_likelihood_proxy.jsonl").exists()
