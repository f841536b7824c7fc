"""Everything once, in seconds: a small network on 2 000 images.

python -m experiments.mnist --config=experiments/configs/smoke.py
"""

from ml_collections import ConfigDict

from experiments.config import base


def get_config() -> ConfigDict:
    config = base()
    config.data.num_train = 2000
    config.data.num_valid = 500
    config.latent_dim = 2
    config.hidden_dims = (64,)
    config.epochs = 4
    config.eval.every = 2
    config.eval.num_samples = 100
    config.eval.num_points = 50
    config.eval.proxy_samples = 10
    return config
