"""The paper's protocol on MNIST (section 5, Fig. 2): grey pixels, tanh, Adagrad, MAP.

python -m experiments.mnist --config=experiments/configs/paper.py:nz=20

nz is 3, 5, 10, 20 or 200 in Fig. 2; samples is the length of the run (Fig. 2's
horizontal axis); the step size is one of the paper's {0.01, 0.02, 0.1}. Where the paper
is silent, the author's code of the time decides: pixels / 256, weights and biases drawn
with a standard deviation of 0.01, log variances that start at 0, the prior on matrices
only.
"""

from ml_collections import ConfigDict

from experiments.config import base, parse_argument


def get_config(argument: str = "") -> ConfigDict:
    given = parse_argument(argument, nz=20, samples=10_000_000)
    config = base()
    config.data.binarization = "grey"
    config.data.scale = 256
    config.latent_dim = given["nz"]
    config.hidden_dims = (500,)
    config.activation = "tanh"
    config.init = "normal"
    config.init_scale = 0.01
    config.bias_init_scale = 0.01
    config.output_bias_from_data = False
    config.estimator = "sgvb_b"
    config.num_samples = 1
    config.weight_prior = 1.0
    config.epochs = 0
    config.train_samples = given["samples"]
    config.batch_size = 100
    config.optimizer = "adagrad"
    # The author's code adds 1e-8 to squares of gradients summed over M = 100 images.
    config.optimizer_args = "eps=1e-12"
    config.learning_rate = 0.02
    config.schedule = "constant"
    config.warmup = 0.0
    config.eval.every = 1
    config.eval.curve = "test"
    config.eval.num_samples = 0  # grey pixels have no likelihood
    return config
