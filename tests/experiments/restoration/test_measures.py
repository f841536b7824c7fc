"""From an answer to measures, from measures to a table and to sentences, by hand."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluation.kinds import Kind
from experiments.evaluation.points import Measured
from experiments.keys import Stream
from experiments.reports.restoration import write_restoration_report
from experiments.restoration.measures import NUM_BINS, measures
from experiments.restoration.measuring import Found, TaskFound
from experiments.restoration.methods import METHODS
from experiments.restoration.problem import Budget
from experiments.restoration.problem import Found as Answered
from experiments.restoration.scores import (
    conditional,
    sandwich_gap,
    scores,
    shortfall,
)
from experiments.restoration.tasks import make_tasks
from experiments.restoration.verdict import verdict

BUDGET = Budget(num_chains=4, num_steps=8, num_leapfrog_steps=1, num_temperatures=5)


def answered(mean, draws=None, curve=(), log_prob=-3.0, **diagnostics) -> Answered:
    """What a method says of an image."""
    mean = jnp.asarray(mean)
    none = jnp.zeros((0, len(mean)))
    return Answered(
        mean=mean,
        log_prob=jnp.float32(log_prob),
        draws=none if draws is None else jnp.asarray(draws),
        curve=jnp.asarray(curve) if len(curve) else none,
        diagnostics={key: jnp.float32(value) for key, value in diagnostics.items()},
    )


def test_binary_measures_by_hand():
    found = answered(
        [0.05, 0.95, 0.55, 0.2, 0.4],
        curve=[[1.0, 1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5, 0.5]],
        ess=7.0,
    )
    x = jnp.array([0.0, 1.0, 0.0, 1.0, 1.0])
    target = jnp.array([True, True, True, True, False])  # the last one is seen
    value = measures(found, x, target, binary=True)
    assert value["num"] == 4
    assert value["log_prob"] == -3
    assert value["ess"] == 7
    squared = 0.05**2 + 0.05**2 + 0.55**2 + 0.8**2
    assert value["squared_error"] == pytest.approx(squared, rel=1e-5)
    assert value["wrong"] == 2
    loss = -np.log([0.95, 0.95, 0.45, 0.2]).sum()
    assert value["log_loss"] == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(value["curve"], [2, 1])
    expected = np.zeros((3, NUM_BINS))  # how many, what is said, what is true
    expected[:, 0] = 1, 0.05, 0
    expected[:, 9] = 1, 0.95, 1
    expected[:, 5] = 1, 0.55, 0
    expected[:, 2] = 1, 0.2, 1
    bins = [value[f"bin_{name}"] for name in ("count", "said", "true")]
    np.testing.assert_allclose(bins, expected, rtol=1e-6)


def test_a_certain_pixel_that_is_wrong_costs_no_infinity():
    x = jnp.array([1.0, 0.0, 1.0, 0.0])
    value = measures(answered([0.0, 1.0, 1.0, 0.0]), x, x == x, binary=True)
    # As if it had been said with a probability of one in a million.
    assert value["log_loss"] == pytest.approx(2 * np.log(1e6), rel=0.01)
    assert value["wrong"] == 2
    np.testing.assert_array_equal(value["bin_count"], [2] + [0] * 8 + [2])


def test_grey_measures_by_hand():
    # Of 101 draws the middle 90 per cent are from 5 to 95 hundredths.
    draws = np.linspace(0, 1, 101)[:, None].repeat(4, axis=1)
    x = jnp.array([0.04, 0.06, 0.9, 0.97])
    target = jnp.array([True, True, True, False])
    found = answered([0.5, 0.5, 0.5, 0.5], draws)
    value = measures(found, x, target, binary=False)
    assert value["num"] == 3
    assert value["inside"] == 2
    assert value["wrong"] == pytest.approx(0.46 + 0.44 + 0.4, rel=1e-5)
    assert value["squared_error"] == pytest.approx(0.46**2 + 0.44**2 + 0.4**2, rel=1e-5)
    assert "bin_count" not in value


def measured(name: str, label: str | None = None, **values) -> Measured:
    kind = Kind(
        name=name,
        label=lambda _: label or METHODS[name].label,
        stream=Stream.RESTORATION,
    )
    arrays = {key: np.array(value, np.float64) for key, value in values.items()}
    num = len(next(iter(arrays.values())))
    return Measured(kind, {}, np.arange(num), arrays, seconds=2.0)


def binary(name: str, num=(4, 4), label=None, **changes) -> Measured:
    """A method's values on some images, 4 pixels of each unless told."""
    count = len(num)
    bins = np.zeros((count, NUM_BINS))
    values = {
        "num": num,
        "log_prob": [-3.0] * count,
        "squared_error": [1.0] * count,
        "wrong": [1.0] * count,
        "said_white": [2.0] * count,
        "both_white": [1.0] * count,
        "white": [2.0] * count,
        "log_loss": [2.0] * count,
        "bin_count": bins,
        "bin_said": bins,
        "bin_true": bins,
    }
    return measured(name, label, **(values | changes))


def task_found(*methods: Measured, sandwich: Measured | None = None) -> TaskFound:
    [task] = make_tasks(
        ["inpaint"],
        image_shape=(4, 4),
        binary=True,
        masks=["half"],
        rates=[],
        noises=[],
        factors=[],
    )
    return TaskFound(task, {one.kind.name: one for one in methods}, {}, sandwich)


def all_found(one: TaskFound, whole: Measured | None = None) -> Found:
    images = np.zeros((1, 4, 4))
    return Found([one], whole, images, np.arange(2), True, False, True, BUDGET)


def test_a_row_of_the_table_by_hand():
    said, true = np.zeros((2, NUM_BINS)), np.zeros((2, NUM_BINS))
    said[:, 0], true[:, 0] = [0.2, 0.1], [0, 1]
    said[:, 7], true[:, 7] = [1.4, 0.7], [2, 0]
    method = binary(
        "mwg",
        num=[4, 8],
        log_prob=[-2.0, -8.0],
        squared_error=[1.0, 2.0],
        wrong=[1.0, 3.0],
        said_white=[2.0, 3.0],
        both_white=[1.0, 1.0],
        white=[2.0, 1.0],
        log_loss=[3.0, 3.0],
        bin_said=said,
        bin_true=true,
        ess=[4.0, 6.0],
        r_hat=[np.nan, 1.2],
        acceptance=[0.5, 0.7],
    )
    score = scores(task_found(method))["mwg"]
    assert score.log_prob == -5
    assert score.log_prob_error == pytest.approx(3)
    assert score.log_prob_per_pixel == pytest.approx(-10 / 12)
    assert score.rmse == pytest.approx(0.5)
    assert score.rmse_error == 0  # the same share of either image
    assert score.wrong == pytest.approx(1 / 3)
    # Of a ratio: the residuals 1 - 4/3 and 3 - 8/3 have a deviation of sqrt(2)/3.
    assert score.wrong_error == pytest.approx(2 / 3 / 12)
    assert score.f1 == pytest.approx(2 * 2 / (5 + 3))
    assert score.log_loss == pytest.approx(0.5)
    assert score.calibration == pytest.approx((0.7 + 0.1) / 12)
    assert score.inside is None
    assert score.images_per_second == 1
    assert score.diagnostics == pytest.approx(
        {"ess": 5, "r_hat": 1.2, "acceptance": 0.6}
    )


def test_of_images_of_one_size_the_errors_are_those_of_a_mean():
    wrong = np.array([1.0, 3.0, 0.0, 2.0])
    score = scores(task_found(binary("sir", num=[4] * 4, wrong=wrong)))["sir"]
    error = (wrong / 4).std(ddof=1) / np.sqrt(4)
    assert score.wrong_error == pytest.approx(error)


def test_a_row_of_grey_pixels():
    values = {"num": [4, 4], "log_prob": [1, 2], "squared_error": [1, 1]}
    one = task_found(measured("hmc", **values, wrong=[1, 2], inside=[4, 3]))
    score = scores(one)["hmc"]
    assert score.inside == pytest.approx(7 / 8)
    assert score.wrong == pytest.approx(3 / 8)
    assert (score.f1, score.log_loss, score.calibration) == (None, None, None)


def written(folder, one: TaskFound, whole: Measured | None = None) -> dict:
    """results.json of one task; a number that JSON has not is refused."""
    images = np.zeros((1, 4, 4))
    shown = {"seen": images, "mean": images, "spread": images, "draws": images[None]}
    one = one._replace(pictures={"mean": shown})
    write_restoration_report(
        all_found(one, whole), folder, title="", config={}, options={}
    )
    text = (folder / "results.json").read_text()
    return json.loads(text, parse_constant=pytest.fail)


def test_what_has_no_density_is_none_in_json(tmp_path):
    one = task_found(binary("nearest", log_prob=[np.nan, np.nan]))
    methods = written(tmp_path, one)["tasks"]["inpaint-half"]["methods"]
    assert methods["nearest"]["log_prob"] is None
    assert methods["nearest"]["rmse"] == 0.5


def annealed(num: int) -> tuple[Measured, Measured]:
    """AIS of what is seen, and of the whole."""
    seen = {
        "seen_log_likelihood": np.arange(num) - 80.0,
        "seen_std_error": [0.3] * num,
    }
    whole = {"log_likelihood": np.arange(num) * 2 - 90.0, "std_error": [0.4] * num}
    return (
        binary("ais", num=[4] * num, **seen),
        measured("annealed", "AIS", **whole),
    )


def test_a_single_image_has_numbers_without_errors(tmp_path):
    """No warning, no NaN that JSON has not, and nothing said that is not known."""
    method, whole = annealed(1)
    both = {"log_likelihood": [-5.0], "upper": [-4.0]}
    one = task_found(
        binary("mean", num=[4], wrong=[2.0]),
        method,
        binary("exact", num=[4], label="exact"),
        sandwich=measured("sandwich", "BDMC", **both),
    )
    results = written(tmp_path, one, whole)
    found = results["tasks"]["inpaint-half"]
    assert found["methods"]["mean"]["rmse"] == 0.5
    assert found["conditional"]["log_likelihood"] == -10
    assert found["sandwich"]["gap"] == 1
    said = " ".join(results["verdict"])
    assert "nan" not in said
    assert " beats " not in said
    assert "nan" not in (tmp_path / "report.html").read_text().partition("<img")[0]


def test_no_white_pixel_and_none_said_has_no_f1(tmp_path):
    none = {"said_white": [0.0, 0.0], "both_white": [0.0, 0.0], "white": [0.0, 0.0]}
    one = task_found(binary("mean", **none))
    methods = written(tmp_path, one)["tasks"]["inpaint-half"]["methods"]
    assert methods["mean"]["f1"] is None


def test_a_perfect_answer_has_an_error_of_zero(tmp_path):
    one = task_found(binary("mean", squared_error=[0.0, 0.0]))
    methods = written(tmp_path, one)["tasks"]["inpaint-half"]["methods"]
    assert methods["mean"]["rmse"] == 0
    assert methods["mean"]["rmse_error"] in (0, None)


def test_pixels_none_of_which_is_missing_are_no_error(tmp_path):
    """A random mask of a small share may take nothing at all."""
    sums = ["squared_error", "wrong", "log_loss", "said_white", "both_white", "white"]
    nothing = {name: [0.0, 0.0] for name in sums}
    one = task_found(binary("mean", num=[0, 0], log_prob=[0.0, 0.0], **nothing))
    methods = written(tmp_path, one)["tasks"]["inpaint-half"]["methods"]
    assert methods["mean"]["rmse"] is None


def test_log_p_of_the_model_by_hand():
    method, whole = annealed(2)
    one = task_found(method)
    found = conditional(all_found(one, whole), one)
    # −90 + 80 and −88 + 79.
    assert found == pytest.approx(
        {
            "log_likelihood": -9.5,
            "std_error": 0.5,
            "draws_std_error": np.sqrt(2 * 0.25) / 2,
            "per_pixel": -19 / 8,
        }
    )
    assert conditional(all_found(one), one) is None
    other = task_found(binary("mean"))
    assert conditional(all_found(other, whole), other) is None


def test_the_gap_of_both_bounds_by_hand():
    both = {"log_likelihood": [-5.0, -7.0], "upper": [-4.0, -4.0]}
    one = task_found(binary("ais"), sandwich=measured("sandwich", "BDMC", **both))
    assert sandwich_gap(one) == pytest.approx(
        {
            "lower": -6.0,
            "upper": -4.0,
            "gap": 2.0,
            "gap_std_error": 1.0,
            "num_images": 2,
        }
    )
    assert sandwich_gap(task_found(binary("ais"))) is None


def test_how_far_below_the_truth_by_hand():
    one = task_found(
        binary("mwg", log_prob=[-4.0, -6.0]),
        binary("nearest", log_prob=[np.nan, np.nan]),
        binary("exact", label="exact", log_prob=[-3.0, -3.0]),
    )
    # One and three nats, of four pixels each.
    assert shortfall(one, "mwg") == pytest.approx((0.5, 0.25))
    assert shortfall(one, "exact") == (0, 0)
    assert shortfall(one, "nearest") is None
    assert shortfall(task_found(binary("mwg")), "mwg") is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([0.0, 1.0, 0.0, 1.0], "beats"),
        ([9.0, 8.0, 9.0, 8.0], "does not beat"),
        ([3.0, 6.0, 6.0, 4.0], "is level with"),
        ([5.0, 5.0, 5.0, 5.0], "is level with"),  # to the last image
    ],
)
def test_a_method_is_compared_with_the_best_baseline(wrong, said):
    num = [16] * 4
    one = task_found(
        binary("mean", num=num, wrong=[5.0, 5.0, 5.0, 5.0]),
        binary("nearest", num=num, wrong=[7.0, 7.0, 7.0, 7.5]),
        binary("mwg", num=num, wrong=wrong),
        binary("lair", num=num, wrong=[15.0, 15.0, 16.0, 15.0]),
    )
    [sentence] = verdict(all_found(one))
    expected = f"Metropolis-within-Gibbs {said} the training mean in pixel errors"
    assert expected in sentence
    assert sentence.startswith("inpaint-half: ")


def test_nothing_is_compared_without_a_baseline_or_without_a_method():
    for method in ("mwg", "mean"):
        assert verdict(all_found(task_found(binary(method)))) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [([1.0, 2.0, 1.0, 2.0], "beats"), ([5.0, 5.0, 6.0, 4.0], "is level with")],
)
def test_a_method_that_does_not_beat_a_baseline_is_held_to_the_truth(wrong, said):
    """Whether the sampler or the model is to blame."""
    num = [16] * 4
    one = task_found(
        binary("mean", num=num, wrong=[5.0, 5.0, 5.0, 5.0]),
        binary("mwg", num=num, wrong=[3.0, 6.0, 6.0, 4.0]),
        binary("exact", num=num, wrong=wrong, label="exact"),
    )
    first = verdict(all_found(one))[0]
    assert f"where p(x|y) itself, by quadrature, {said} it (" in first
    assert (
        "itself"
        not in verdict(
            all_found(
                one._replace(
                    methods={
                        name: value
                        for name, value in one.methods.items()
                        if name != "exact"
                    }
                )
            )
        )[0]
    )
