"""The examples in the docstrings of every module of `experiments.reports` hold."""

import doctest
import importlib
import pkgutil

import pytest

from experiments import reports

MODULES = [module.name for module in pkgutil.iter_modules(reports.__path__)]


def test_all_modules_are_found():
    assert {"charts", "images", "latent", "page", "run", "sweep"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name):
    module = importlib.import_module(f"experiments.reports.{name}")
    assert doctest.testmod(module).failed == 0
