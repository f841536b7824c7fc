"""The main job: bundled MNIST, dynamic binarisation, about five minutes on two cores.

python -m experiments.mnist
"""

from ml_collections import ConfigDict

from experiments.config import base


def get_config() -> ConfigDict:
    return base()
