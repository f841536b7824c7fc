"""The paper's protocol on Frey Face (section 5, Fig. 2): Gaussian pixels, Adagrad, MAP.

python -m experiments.frey_face --config.data.path=frey_rawface.mat

nz is 2, 5, 10 or 20 in Fig. 2; samples is the length of the run. 200 hidden units,
pixels / 256, a Gaussian likelihood with a sigmoid mean and a learned log variance for
every pixel, 1600 frames to train on and 365 to test on. Where the paper is silent, the
author's code of the time decides, as in paper.py; it has no floor of the variance. Here
a pixel's standard deviation is at least 1/256 / sqrt(12), what the rounding of a pixel
to a byte has: a density that is sharper has learned the rounding.
"""

from ml_collections import ConfigDict

from experiments.config import base, parse_argument
from experiments.configs import paper


def get_config(argument: str = "") -> ConfigDict:
    given = parse_argument(argument, nz=10, samples=10_000_000)
    config = paper.get_config(f"nz={given['nz']},samples={given['samples']}")
    config.data.name = "frey_face"
    config.data.num_valid = 0
    config.hidden_dims = (200,)
    config.likelihood = "gaussian"
    config.log_variance_init_scale = 0.01
    config.min_scale = 1 / 256 / 12**0.5
    # An epoch has 1600 images.
    config.eval.every = 125
    config.eval.num_samples = base().eval.num_samples
    config.eval.num_points = 0
    config.checkpoint.every = 125
    return config
