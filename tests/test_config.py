"""Every field does something, and every bad value is refused before a compile."""

import functools
import hashlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import aevb
from experiments import config as fields
from experiments import data, evaluation, program
from experiments.configs import default, iwae, paper, smoke

# optax.adam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("standard_promotion")


def tiny() -> ConfigDict:
    config = fields.base()
    config.data.num_train = 200
    config.data.num_valid = 100
    config.latent_dim = 3
    config.hidden_dims = (8,)
    config.batch_size = 50
    config.epochs = 2
    config.optimizer = "adam"
    config.eval.num_samples = 4
    config.eval.num_points = 10
    return config


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


@functools.cache
def load(name: str, path: str, num_valid: int, num_train: int) -> data.Dataset:
    return data.load(name, path, num_valid=num_valid, num_train=num_train, num_test=100)


def fingerprint(config: ConfigDict) -> str:
    """A digest of everything a run computes: its programs, constants and data.

    The programs are compared as they are lowered, not compiled: a step size or a
    schedule is a constant in that text.
    """
    fields.validate(config)
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
    lowered = jax.jit(epoch).lower(key, state, built.train).as_text()

    def log_p(params, image):
        return aevb.importance_log_likelihood(
            functools.partial(built.model.encode, params),
            functools.partial(built.model.decode, params),
            key,
            built.to_input(image),
            num_samples=config.eval.num_samples,
            chunk_size=config.eval.chunk_size,
        )

    points = evaluation.evenly_spaced(len(built.test), config.eval.num_points)
    parts = [lowered, str(built.num_epochs), str(points.tolist())]
    parts.append(jax.jit(start).lower().as_text())
    if config.eval.num_samples:
        batch = built.test[: config.eval.batch_size]
        lower_log_p = jax.jit(jax.vmap(log_p, (None, 0))).lower
        parts.append(lower_log_p(state.params, batch).as_text())
    digest = hashlib.sha256("\n".join(parts).encode())
    for images in (built.train, built.valid, built.test):
        digest.update(np.ascontiguousarray(images).tobytes())
    return digest.hexdigest()


# The fields that only the loop of a run reads are changed in test_programs.py.
BY_THE_LOOP = ("eval.every", "eval.curve", "checkpoint.")

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
    "likelihood": {
        "likelihood": "gaussian",
        "data.binarization": "grey",
        "output_bias_from_data": False,
    },
    "precision": {"precision": "bfloat16"},
    "estimator": {"estimator": "sgvb_a"},
    "num_samples": {"num_samples": 2},
    "beta": {"beta": 0.5},
    "weight_prior": {"weight_prior": 1.0},
    "epochs": {"epochs": 3},
    "train_samples": {"epochs": 0, "train_samples": 1000},
    "batch_size": {"batch_size": 40},
    "optimizer": {"optimizer": "adagrad"},
    "optimizer_args": {"optimizer_args": "b1=0.8"},
    "learning_rate": {"learning_rate": 2e-3},
    "schedule": {"schedule": "constant"},
    "warmup": {"warmup": 0.5},
    "eval.num_samples": {"eval.num_samples": 5},
    "eval.num_points": {"eval.num_points": 9},
    "eval.chunk_size": {"eval.chunk_size": 3},
    "eval.batch_size": {"eval.batch_size": 7},
}


def change(config: ConfigDict, changes: dict[str, object]) -> ConfigDict:
    config.update_from_flattened_dict(changes)
    return config


@functools.cache
def base_fingerprint() -> str:
    return fingerprint(tiny())


def test_every_field_has_a_change_here():
    elsewhere = ("data.name", "data.path", "data.stream")  # test_parallel.py
    names = [
        name
        for name in flatten(fields.base())
        if name not in elsewhere and not name.startswith(BY_THE_LOOP)
    ]
    assert sorted(names) == sorted(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_changing_a_field_changes_the_run(name):
    assert fingerprint(change(tiny(), CHANGES[name])) != base_fingerprint()


def test_the_fingerprint_of_the_same_run_is_the_same():
    assert fingerprint(tiny()) == base_fingerprint()


def test_data_name_and_path_reach_the_data_door(tmp_path):
    with pytest.raises(data.DataError, match="no_such_set"):
        fingerprint(change(tiny(), {"data.name": "no_such_set"}))
    with pytest.raises(data.DataError, match=tmp_path.name):
        fingerprint(change(tiny(), {"data.path": str(tmp_path)}))


def test_every_estimator_lowers_to_its_own_program():
    digests = {
        fingerprint(change(tiny(), {"estimator": estimator, "num_samples": 2}))
        for estimator in fields.ESTIMATORS
    }
    assert len(digests) == len(fields.ESTIMATORS)


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
    ({"precision": "float16"}, "one of float32"),
    ({"likelihood": "poisson"}, "one of bernoulli"),
    ({"likelihood": "gaussian"}, "data.binarization=grey"),
    ({"data.binarization": "gray"}, "one of dynamic"),
    ({"data.scale": 254}, "one of 255, 256"),
    ({"data.name": ""}, "a data set's name"),
    ({"data.num_valid": 0}, "eval.curve=test"),
    ({"optimizer": "adma"}, "an optax optimizer: .*adam"),
    ({"optimizer": "apply_updates"}, "an optax optimizer"),
    ({"optimizer_args": "b3=0.1"}, "optax.adam does not take"),
    ({"optimizer_args": "0.9"}, "keyword arguments"),
    ({"optimizer_args": "b1=__import__('os')"}, "literal values"),
    ({"optimizer_args": "learning_rate=1.0"}, "does not take"),
    ({"schedule": "burda"}, "0 with schedule=burda"),
    ({"eval.every": 0}, "at least 1"),
    ({"eval.curve": "train"}, "one of valid"),
    ({"eval.num_samples": -1}, "at least 0"),
    ({"eval.chunk_size": 0}, "at least 1"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_value_is_refused_in_one_line(changes, message):
    with pytest.raises(fields.ConfigError, match=message) as error:
        fields.validate(change(tiny(), changes))
    assert "\n" not in str(error.value)


def test_a_batch_larger_than_the_data_is_refused():
    config = change(tiny(), {"batch_size": 201})
    with pytest.raises(fields.ConfigError, match="at most the 200 training images"):
        fingerprint(config)


def test_every_config_file_is_valid():
    arguments = ["", "nz=3", "nz=200,samples=1e8"]
    for config in (
        default.get_config(),
        smoke.get_config(),
        *(paper.get_config(argument) for argument in arguments),
        iwae.get_config("k=5,scale=0.01"),
        iwae.get_config(),
    ):
        fields.validate(config)
    assert paper.get_config("nz=200,samples=1e8").train_samples == 100_000_000
    assert iwae.get_config().epochs == 3280


@pytest.mark.parametrize("argument", ["nz=three", "nz=3.5", "n=3", "nz"])
def test_a_bad_config_argument_is_refused(argument):
    with pytest.raises(fields.ConfigError, match="nz=20"):
        paper.get_config(argument)
