"""The package and its dependencies: the one list of them.

`aevb` alone is installed. `experiments` runs from a clone, with the clone's root as the
working directory: a name that general, and its images, have no place among a user's
packages. Both ends of every range pass the tests: CONTRIBUTING.md says how to check
them.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "jax>=0.10,<0.13",
    "numpy>=2,<3",
    "optax>=0.2.6,<0.3",
]
NETS = ["flax>=0.12.7,<0.13"]
EXPERIMENTS = [
    *NETS,
    "absl-py>=2.1,<3",
    'array_record>=0.7,<0.9; platform_system != "Windows"',
    "flatbuffers>=24.3.25,<26",  # jax.export writes artefacts with it
    "importlib_resources>=6.4,<8",  # tensorflow-datasets needs it, undeclared
    "matplotlib>=3.10.7,<3.12",
    "ml-collections>=1.1,<2",
    "orbax-checkpoint>=0.11.30,<0.13",
    "pillow>=11,<14",
    "pyarrow>=18,<27",
    "scikit-learn>=1.5,<2",
    "scipy>=1.14,<2",
    "tensorboardX>=2.6.2,<3",
    "tensorflow-datasets>=4.9.10,<4.10",
]
TEST = [
    *EXPERIMENTS,
    "blackjax>=1.4,<2",
    "dm-haiku>=0.0.17,<0.1",
    "equinox>=0.13.1,<0.14",
    "mypy>=2.1,<3",
    "numpyro>=0.21,<0.23",
    "pytest>=8,<10",
    "pytest-xdist>=3.7,<4",
    "pyyaml>=6,<7",
    "ruff>=0.17,<0.18",
    "selenium>=4.30,<5",
]

# `wandb sync` joins the parts of an offline run that went on from 0.29 on.
WANDB = ["wandb>=0.29,<0.32"]
MLFLOW = [
    "mlflow-skinny>=3.1,<3.18",
    # Its store in a file of this machine, the one it takes where no server is named.
    "alembic>=1.14,<2",
    "sqlalchemy>=2.0.30,<3",
]

# The site of docs/. Nothing of it is imported by aevb, experiments or the tests.
DOCS = [
    "griffelib>=2.4,<3",
    "latex2mathml>=3.81,<4",
    "mkdocs>=1.6.1,<2",
    "mkdocs-material>=9.8,<10",
    "mkdocstrings>=1.0.8,<2",
    "mkdocstrings-python>=2.0.11,<3",
    "pymdown-extensions>=13.1,<14",
    "ruff>=0.17,<0.18",
    "ziamath>=0.13,<0.14",
]

readme = Path(__file__).with_name("README.md")
package = Path(__file__).with_name("aevb") / "__init__.py"
version = re.search(r'^__version__ = "(.+)"$', package.read_text("utf-8"), re.M)
assert version is not None

setup(
    name="aevb",
    version=version[1],
    description="Auto-Encoding Variational Bayes in JAX",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author="The aevb authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["aevb", "aevb.*"]),
    package_data={"aevb": ["py.typed"]},
    install_requires=CORE,
    extras_require={
        "docs": DOCS,
        "nets": NETS,
        "experiments": EXPERIMENTS,
        "tensorflow": [*EXPERIMENTS, "tensorflow>=2.20,<3"],
        "wandb": [*EXPERIMENTS, *WANDB],
        "mlflow": [*EXPERIMENTS, *MLFLOW],
        "test": TEST,
    },
)
