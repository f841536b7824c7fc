"""What a release says of itself is one version."""

from pathlib import Path

import yaml

import aevb
from experiments.storage.manifest import make_manifest

ROOT = Path(__file__).parents[1]


def test_there_is_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    headings = [line[3:] for line in changes.splitlines() if line.startswith("## ")]
    assert aevb.__version__ == citation["version"] == headings[0]
    assert make_manifest()["version"] == aevb.__version__


def test_the_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["references"][0]["url"] == "https://arxiv.org/abs/1312.6114"
    assert citation["cff-version"] == "1.2.0"
