"""The manifest names the code that numbers come from."""

import shutil
from pathlib import Path

import pytest

from experiments.storage.manifest import code_sha256, make_manifest, tree_sha256

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def copy(tmp_path) -> Path:
    def no_code(_: str, names: list[str]) -> list[str]:
        return [name for name in names if "." in name and not name.endswith(".py")]

    for package in ("aevb", "experiments"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=no_code)
    return tmp_path


def test_a_copy_has_the_same_sum_wherever_it_is(copy):
    assert tree_sha256(copy) == code_sha256() == make_manifest()["code_sha256"]


@pytest.mark.parametrize(
    "name",
    [
        "aevb/train.py",
        "aevb/marginal/annealed.py",
        "experiments/config/fields.py",
        "experiments/configs/paper.py",
        "experiments/data/idx.py",
        "experiments/evaluation/points.py",
        "experiments/sweeps/lanes.py",
        "experiments/training/loop.py",
    ],
)
def test_a_change_in_any_folder_is_another_sum(copy, name):
    before = tree_sha256(copy)
    with (copy / name).open("ab") as file:
        file.write(b"# one more\n")
    assert tree_sha256(copy) != before


def test_a_renamed_or_new_module_is_another_sum(copy):
    sums = {tree_sha256(copy)}
    (copy / "aevb" / "train.py").rename(copy / "aevb" / "training.py")
    sums.add(tree_sha256(copy))
    (copy / "aevb" / "new").mkdir()
    (copy / "aevb" / "new" / "empty.py").touch()
    sums.add(tree_sha256(copy))
    assert len(sums) == 3


@pytest.mark.parametrize("name", ["reports/page.py", "trackers/copies.py"])
def test_reports_and_trackers_make_no_numbers(name, copy):
    before = tree_sha256(copy)
    with (copy / "experiments" / name).open("ab") as file:
        file.write(b"# one more\n")
    assert tree_sha256(copy) == before
