"""Every field does something, and every bad value is refused before a compile."""

import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from configurations import small
from ml_collections import ConfigDict

import aevb
from experiments import data, program
from experiments.config import validate
from experiments.config.fields import (
    ALGORITHMS,
    ESTIMATORS,
    POSTERIORS,
    PRECISIONS,
    WEIGHT_PRIORS,
    WEIGHTS,
    base,
    flatten,
)
from experiments.configs import default, frey_face, iwae, paper, smoke
from experiments.errors import ConfigError, DataError
from experiments.processes.interruption import StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.workdir import held
from experiments.training import runner
from experiments.training.result import Result

pytestmark = [
    pytest.mark.usefixtures("cache"),
    # optax.adam raises a float to an integer power.
    pytest.mark.usefixtures("standard_promotion"),
]


@functools.cache
def load(name: str, path: str, num_valid: int, num_train: int) -> data.Dataset:
    return data.load(name, path, num_valid=num_valid, num_train=num_train, num_test=100)


def fingerprint(config: ConfigDict) -> str:
    """A digest of everything that training computes: programs, constants and data.

    The programs are compared as they are traced, not compiled: a step size or a
    schedule is a constant in that text.
    """
    validate(config)
    dataset = load(
        config.data.name,
        config.data.path,
        config.data.num_valid,
        config.data.num_train,
    )
    built = program.build(config, dataset)
    algorithm = built.algorithm(program.hyperparameters(config))
    key = jax.random.key(config.seed)

    def start() -> aevb.State:
        return algorithm.init(built.init(jax.random.key(config.seed)))

    state = jax.eval_shape(start)
    epoch = functools.partial(
        aevb.epoch,
        algorithm,
        batch_size=config.batch_size,
        transform=built.transform,
    )
    digest = hashlib.sha256(str(built.num_epochs).encode())
    arrays = [built.train, built.valid, built.test]
    for traced in (
        jax.jit(epoch).trace(key, state, built.train),
        jax.jit(start).trace(),
    ):
        # Without the addresses of functions, which differ from trace to trace.
        digest.update(re.sub(r" at 0x\w+", "", str(traced.jaxpr)).encode())
        arrays += traced.jaxpr.consts
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


GAUSSIAN: dict[str, object] = {
    "likelihood": "gaussian",
    "data.binarization": "grey",
    "output_bias_from_data": False,
}
VB: dict[str, object] = {"weights": "posterior", "weight_prior": 1.0}
CHANGES: dict[str, dict[str, object]] = {
    "seed": {"seed": 1},
    "data.binarization": {"data.binarization": "static"},
    "data.scale": {"data.scale": 256},
    "data.num_train": {"data.num_train": 150},
    "data.num_valid": {"data.num_valid": 50},
    "latent_dim": {"latent_dim": 4},
    "hidden_dims": {"hidden_dims": (8, 8)},
    "activation": {"activation": "tanh"},
    "init": {"init": "glorot_uniform"},
    "init_scale": {"init_scale": 0.5},
    "bias_init_scale": {"bias_init_scale": 0.01},
    "output_bias_from_data": {"output_bias_from_data": False},
    "posterior": {"posterior": "laplace"},
    "prior_shape": {"posterior": "gamma", "prior_shape": 2.0},
    "likelihood": GAUSSIAN,
    "log_variance_init_scale": {**GAUSSIAN, "log_variance_init_scale": 0.1},
    "min_scale": {**GAUSSIAN, "min_scale": 0.01},
    "precision": {"precision": "bfloat16"},
    "algorithm": {"algorithm": "wake_sleep"},
    "dream_clip": {"algorithm": "wake_sleep", "dream_clip": 1e-3},
    "mcem.leapfrog_steps": {"algorithm": "mcem", "mcem.leapfrog_steps": 3},
    "mcem.weight_updates": {"algorithm": "mcem", "mcem.weight_updates": 2},
    "mcem.acceptance": {"algorithm": "mcem", "mcem.acceptance": 0.8},
    "mcem.chunk_size": {"algorithm": "mcem", "mcem.chunk_size": 1},
    "estimator": {"estimator": "sgvb_a"},
    "num_samples": {"num_samples": 2},
    "beta": {"beta": 0.5},
    "weight_prior": {"weight_prior": 1.0},
    "weight_prior_on": {"weight_prior": 1.0, "weight_prior_on": "all"},
    "weights": VB,
    "weight_noise": {**VB, "weight_noise": "shared"},
    "weight_init_scale": {**VB, "weight_init_scale": 0.01},
    "epochs": {"epochs": 4},
    "train_samples": {"epochs": 0, "train_samples": 1000},
    "batch_size": {"batch_size": 40},
    "optimizer": {"optimizer": "adagrad"},
    "optimizer_args": {"optimizer_args": "b1=0.8"},
    "learning_rate": {"learning_rate": 2e-3},
    "schedule": {"schedule": "constant"},
    "warmup": {"warmup": 0.5},
    "hold": {"hold": 3},
}
# What a field has no meaning without: a run with it is another run already.
GROUNDS: dict[str, dict[str, object]] = {
    "log_variance_init_scale": GAUSSIAN,
    "min_scale": GAUSSIAN,
    "dream_clip": {"algorithm": "wake_sleep"},
    "mcem.leapfrog_steps": {"algorithm": "mcem"},
    "mcem.weight_updates": {"algorithm": "mcem"},
    "mcem.acceptance": {"algorithm": "mcem"},
    "mcem.chunk_size": {"algorithm": "mcem"},
    "weight_prior_on": {"weight_prior": 1.0},
    "prior_shape": {"posterior": "gamma"},
    "weights": {"weight_prior": 1.0},
    "weight_noise": VB,
    "weight_init_scale": VB,
}


def change(config: ConfigDict, changes: dict[str, object]) -> ConfigDict:
    config.update_from_flattened_dict(changes)
    return config


@functools.cache
def base_fingerprint(grounds: tuple[tuple[str, object], ...] = ()) -> str:
    return fingerprint(change(small(), dict(grounds)))


def test_every_field_has_a_change_here():
    elsewhere = ("data.name", "data.path", "data.stream")  # test_parallel.py
    names = set(flatten(base().to_dict())) - set(elsewhere)
    assert sorted(names) == sorted([*CHANGES, *LOOKS])


@pytest.mark.parametrize("name", CHANGES)
def test_changing_a_field_changes_the_run(name):
    before = base_fingerprint(tuple(GROUNDS.get(name, {}).items()))
    assert fingerprint(change(small(), CHANGES[name])) != before


def test_every_algorithm_and_prior_has_its_own_program():
    digests = {fingerprint(change(small(), {"algorithm": one})) for one in ALGORITHMS}
    assert len(digests) == len(ALGORITHMS)
    priors = {
        fingerprint(change(small(), {"weight_prior": 1.0, "weight_prior_on": one}))
        for one in WEIGHT_PRIORS
    }
    assert len(priors) == len(WEIGHT_PRIORS)


def test_the_fingerprint_of_the_same_run_is_the_same():
    assert fingerprint(small()) == base_fingerprint()


def test_data_name_and_path_reach_the_data_door(tmp_path):
    with pytest.raises(DataError, match="no_such_set"):
        fingerprint(change(small(), {"data.name": "no_such_set"}))
    with pytest.raises(DataError, match=tmp_path.name):
        fingerprint(change(small(), {"data.path": str(tmp_path)}))


def test_every_estimator_has_its_own_program():
    digests = {
        fingerprint(change(small(), {"estimator": estimator, "num_samples": 2}))
        for estimator in ESTIMATORS
    }
    assert len(digests) == len(ESTIMATORS)


def test_every_posterior_has_its_own_program():
    digests = {
        fingerprint(small(posterior=posterior, estimator="sgvb_a"))
        for posterior in POSTERIORS
    }
    assert len(digests) == len(POSTERIORS)


def test_every_posterior_over_weights_has_its_own_program():
    digests = {
        fingerprint(small(weights=weights, weight_prior=1.0)) for weights in WEIGHTS
    }
    assert len(digests) == len(WEIGHTS)


def test_every_precision_has_its_own_program():
    digests = {fingerprint(small(precision=precision)) for precision in PRECISIONS}
    assert len(digests) == len(PRECISIONS)


# ---- fields that training does not read: what a whole run looks at and keeps ----


def run(config: ConfigDict, workdir: Path) -> Result:
    with held(workdir), StopRequest() as stop:
        return runner.run(config, workdir, stop)


class Seen(NamedTuple):
    """What a run leaves, and the programs that it compiled for log p(x)."""

    params: Any
    metrics: list[dict[str, Any]]
    kept: list[int]
    indices: list[int]
    log_likelihood: list[float]
    probes: Any
    whole: list[float] | None
    programs: list[str]


@pytest.fixture(scope="module")
def see(cache: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Seen]:
    """Runs a configuration by `experiments.training.runner`; the same one once."""

    @functools.cache
    def see(**changes: object) -> Seen:
        programs: list[str] = []
        compile_lowered = jax.stages.Lowered.compile

        def spy(lowered: jax.stages.Lowered, *args: Any, **kwargs: Any) -> Any:
            programs.append(lowered.as_text())
            return compile_lowered(lowered, *args, **kwargs)

        workdir: Path = tmp_path_factory.mktemp("runs") / "run"
        with (
            pytest.MonkeyPatch.context() as patch,
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            patch.setattr(jax.stages.Lowered, "compile", spy)
            found = run(small(**{**SHORT, **changes}), workdir)
        whole = found.likelihood.whole
        return Seen(
            params=jax.device_get(found.params),
            metrics=[
                {name: value for name, value in line.items() if "second" not in name}
                for line in found.metrics
            ],
            kept=Checkpoints(workdir).steps(),
            indices=found.likelihood.points.indices.tolist(),
            log_likelihood=found.likelihood.points.values["log_likelihood"].tolist(),
            probes=found.probes,
            whole=whole and [float(number) for number in whole],
            programs=programs,
        )

    return see


SHORT = {"epochs": 3, "checkpoint.every": 1, "checkpoint.keep": 2}

# What each field is there to change, and what follows from that.
LOOKS: dict[str, tuple[object, set[str]]] = {
    "eval.every": (2, {"metrics"}),
    "eval.curve": ("test", {"metrics"}),
    "eval.num_samples": (11, {"log_likelihood", "programs"}),
    "eval.num_points": (5, {"indices", "log_likelihood"}),
    "eval.proxy_samples": (3, {"whole", "programs"}),
    "eval.probe_points": (50, {"probes"}),
    "eval.std_error": (30.0, {"indices", "log_likelihood", "whole"}),
    "eval.chunk_size": (4, {"programs"}),
    "eval.batch_size": (2, {"programs"}),
    "eval.precision": ("bfloat16", {"log_likelihood", "programs"}),
    "checkpoint.every": (3, {"kept"}),
    "checkpoint.keep": (1, {"kept"}),
    "checkpoint.at": ((1,), {"kept"}),
}


@pytest.mark.parametrize("name", LOOKS)
def test_changing_a_field_changes_what_a_run_looks_at_or_keeps(name, see):
    value, expected = LOOKS[name]
    before, after = see(), see(**{name: value})
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    changed = {
        part
        for part in Seen._fields[1:]
        if getattr(before, part) != getattr(after, part)
    }
    # Other shapes of products, other bits.
    rounding = (
        {"log_likelihood"} if name in ("eval.chunk_size", "eval.batch_size") else set()
    )
    assert expected <= changed <= expected | rounding
    if rounding:
        np.testing.assert_allclose(
            before.log_likelihood, after.log_likelihood, rtol=1e-5
        )


def test_without_samples_a_run_has_no_log_likelihood(tmp_path):
    changes = {"epochs": 1, "eval.num_samples": 0}
    assert run(small(**changes), tmp_path / "run").likelihood is None


BAD: list[tuple[dict[str, object], str]] = [
    ({"learning_rate": float("nan")}, "learning_rate is nan, expected a finite number"),
    ({"learning_rate": float("inf")}, "expected a finite number"),
    ({"learning_rate": 0.0}, "greater than 0"),
    ({"learning_rate": -1e-3}, "greater than 0"),
    ({"init_scale": 0.0}, "greater than 0"),
    ({"bias_init_scale": -1.0}, "at least 0"),
    ({"weight_prior": -1.0}, "at least 0"),
    ({"beta": -1.0}, "at least 0"),
    ({"beta": 2.0, "estimator": "iwae"}, "no KL term"),
    ({"warmup": 1.0}, "0 <= warmup < 1"),
    ({"latent_dim": 0}, "at least 1"),
    ({"hidden_dims": (8, 0)}, "widths of at least 1"),
    ({"batch_size": 0}, "at least 1"),
    ({"num_samples": 0}, "at least 1"),
    ({"seed": -1}, "at least 0"),
    ({"seed": 2**32}, "below"),
    ({"epochs": -1}, "at least 0"),
    ({"epochs": 0}, "exactly one"),
    ({"train_samples": 100}, "exactly one"),
    ({"activation": "relo"}, "one of elu, gelu"),
    ({"init": "xavier"}, "one of glorot_uniform"),
    ({"estimator": "sgvb"}, "one of sgvb_a"),
    ({"schedule": "step"}, "one of constant"),
    ({"precision": "float16"}, "one of float32, tensorfloat32, bfloat16"),
    ({"eval.precision": "highest"}, "eval.precision is 'highest', expected one of"),
    ({"likelihood": "poisson"}, "one of bernoulli"),
    ({"likelihood": "gaussian"}, "data.binarization=grey"),
    ({"data.binarization": "gray"}, "one of dynamic"),
    ({"data.scale": 254}, "one of 255, 256"),
    ({"data.name": ""}, "a data set's name"),
    ({"data.num_valid": 0}, "eval.curve=test"),
    ({"posterior": "gaussian"}, "one of normal, laplace"),
    ({"posterior": "logistic"}, "no closed form.* set config.estimator=sgvb_a or stl"),
    ({"posterior": "gamma", "algorithm": "wake_sleep"}, "normal with algorithm"),
    ({"prior_shape": 2.0}, "0 with posterior=normal"),
    ({"posterior": "gamma", "prior_shape": -1.0}, "at least 0"),
    (
        {"posterior": "student_t", "estimator": "stl", "prior_shape": 1.0},
        "more than 1 with student_t",
    ),
    ({"posterior": "dirichlet", "latent_dim": 1}, "at least 2 with dirichlet"),
    ({"weights": "bayes"}, "one of point, posterior"),
    ({"weights": "posterior"}, "set config.weight_prior=1"),
    ({**VB, "algorithm": "wake_sleep"}, "point with wake_sleep"),
    ({**VB, "weight_prior_on": "all"}, "matrices with weights=posterior"),
    ({**VB, "weight_init_scale": 0.0}, "greater than 0"),
    ({"weight_noise": "shared"}, "local with weights=point"),
    ({"weight_init_scale": 0.01}, "0.1 with weights=point"),
    ({"optimizer": "adma"}, "an optax optimizer: .*adam"),
    ({"optimizer": "apply_updates"}, "an optax optimizer"),
    ({"optimizer_args": "b3=0.1"}, "optax.adam does not take"),
    ({"optimizer_args": "0.9"}, "keyword arguments"),
    ({"optimizer_args": "b1=__import__('os')"}, "literal values"),
    ({"optimizer_args": "learning_rate=1.0"}, "does not take"),
    ({"schedule": "burda"}, "0 with schedule=burda"),
    ({"algorithm": "em"}, "one of aevb, wake_sleep, mcem"),
    ({"algorithm": "mcem", "beta": 0.5}, "no such choice: set config.beta=1.0"),
    ({"algorithm": "wake_sleep", "estimator": "iwae"}, "set config.estimator=sgvb_b"),
    ({"algorithm": "mcem", "num_samples": 2}, "set config.num_samples=1"),
    ({"dream_clip": 1e-3}, "0 but with wake_sleep and bernoulli"),
    ({"algorithm": "wake_sleep", "dream_clip": 0.5}, "a probability, 0 or more, < 0.5"),
    ({"min_scale": 0.01}, "0 with likelihood=bernoulli"),
    ({"log_variance_init_scale": 0.01}, "0 with likelihood=bernoulli"),
    ({"min_scale": -1.0}, "at least 0"),
    ({"hold": -1}, "at least 0"),
    ({"weight_prior_on": "biases"}, "one of matrices"),
    ({"mcem.leapfrog_steps": 0}, "at least 1"),
    ({"mcem.weight_updates": 0}, "at least 1"),
    ({"mcem.acceptance": 1.0}, "between 0 and 1"),
    ({"checkpoint.at": (0,)}, r"epochs, such as \(10, 100\)"),
    ({"eval.every": 0}, "at least 1"),
    ({"eval.curve": "train"}, "one of valid"),
    ({"eval.num_samples": -1}, "at least 0"),
    ({"eval.chunk_size": 0}, "at least 1"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_value_is_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        validate(change(small(), changes))
    assert "\n" not in str(error.value)


def test_a_batch_larger_than_the_data_is_refused():
    config = change(small(), {"batch_size": 321})
    with pytest.raises(ConfigError, match="at most the 320 training images"):
        fingerprint(config)


def test_every_config_file_is_valid():
    arguments = ["", "nz=3", "nz=200,samples=1e8"]
    for config in (
        default.get_config(),
        smoke.get_config(),
        *(paper.get_config(argument) for argument in arguments),
        iwae.get_config("k=5,scale=0.01"),
        iwae.get_config(),
        frey_face.get_config(),
        frey_face.get_config("nz=2,samples=1e6"),
    ):
        validate(config)
    assert paper.get_config("nz=200,samples=1e8").train_samples == 100_000_000
    assert iwae.get_config().epochs == 3280


@pytest.mark.parametrize("argument", ["nz=three", "nz=3.5", "n=3", "nz"])
def test_a_bad_config_argument_is_refused(argument):
    with pytest.raises(ConfigError, match="nz=20"):
        paper.get_config(argument)
