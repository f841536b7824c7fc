"""Burda et al. (arXiv 1509.00519), one stochastic layer: 784-200-200-50, tanh, IWAE.

python -m experiments.mnist --config=experiments/configs/iwae.py:k=5,scale=0.02

k is the number of importance samples (1, 5 or 50 in the paper). scale shortens the
schedule: 1 is the paper's 3280 passes in eight stages, from 1e-3 to 1e-4.
"""

from ml_collections import ConfigDict

from experiments.config import base, parse_argument


def get_config(argument: str = "") -> ConfigDict:
    given = parse_argument(argument, k=50, scale=1.0)
    config = base()
    config.data.binarization = "dynamic"
    config.data.num_valid = 400  # as in the released code
    config.latent_dim = 50
    config.hidden_dims = (200, 200)
    config.activation = "tanh"
    config.init = "glorot_uniform"
    config.init_scale = 1.0
    config.bias_init_scale = 0.0
    config.output_bias_from_data = True
    config.estimator = "iwae"
    config.num_samples = given["k"]
    config.weight_prior = 0.0
    config.epochs = max(1, round(3280 * given["scale"]))
    config.train_samples = 0
    config.batch_size = 20
    config.optimizer = "adam"
    config.optimizer_args = "b1=0.9, b2=0.999, eps=1e-4"
    config.learning_rate = 1e-3
    config.schedule = "burda"
    config.warmup = 0.0
    config.eval.every = max(1, config.epochs // 20)
    return config
