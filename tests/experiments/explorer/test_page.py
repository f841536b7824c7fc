"""The page as a file: how large it is, what it holds, and what it refuses."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
from configurations import small
from untrained import untrained

from experiments import explore
from experiments.config import base, validate
from experiments.data import load
from experiments.errors import ConfigError
from experiments.explorer.contents import Explored
from experiments.explorer.networks import Precision, for_page
from experiments.explorer.page import write_explorer
from experiments.training.opened import Opened

MEGABYTE = 10**6


def part(page: str, name: str) -> str:
    return re.search(rf'id="{name}">(.*?)</script>', page, re.DOTALL)[1]


@pytest.fixture(scope="module")
def data():
    return load(num_valid=0)


@pytest.fixture(scope="module")
def default(data) -> Explored:
    """As large as the run of `python -m experiments.mnist`."""
    config = base()
    validate(config)
    return untrained(config, data)


@pytest.fixture(scope="module")
def tiny(data) -> Explored:
    return untrained(small(), data)


def test_the_default_network_fits_into_five_megabytes(default, tmp_path):
    written = write_explorer(default, tmp_path / "a.html", most_bytes=5 * MEGABYTE)
    assert written.path.stat().st_size == written.num_bytes < 5 * MEGABYTE
    assert written.precision == Precision(decoder=3, encoder=2)
    assert written.error < 1e-6


def test_weights_get_fewer_bits_where_there_is_less_room(default, tmp_path):
    """And what that costs is measured; where there is still no room it is an error."""
    written = write_explorer(default, tmp_path / "a.html", most_bytes=4 * MEGABYTE)
    assert written.num_bytes < 4 * MEGABYTE
    assert written.precision == Precision(decoder=2, encoder=2)
    assert 2e-6 < written.error < 1e-4
    with pytest.raises(ConfigError, match=r"expected at most 3: give --megabytes=4"):
        write_explorer(default, tmp_path / "b.html", most_bytes=3 * MEGABYTE)
    assert not (tmp_path / "b.html").exists()


def test_the_page_allows_its_own_script_and_style_and_no_connection(tiny, tmp_path):
    path = write_explorer(tiny, tmp_path / "a.html", most_bytes=MEGABYTE).path
    page = path.read_text()
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    for tag in ('script type="module"', "style"):
        name = tag.partition(" ")[0]
        text = re.search(rf"<{tag}>(.*?)</{name}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert not re.search(r'\b(src|href)="(?!data:)', page)


def test_the_numbers_are_those_whose_sum_it_names(tiny, tmp_path):
    page = write_explorer(
        tiny, tmp_path / "a.html", most_bytes=MEGABYTE
    ).path.read_text()
    words = json.loads(part(page, "words"))
    numbers = base64.b64decode(part(page, "data"))
    assert hashlib.sha256(numbers).hexdigest() == words["sha256"]
    assert sum(entry["size"] for entry in words["arrays"].values()) == len(numbers)
    entry = words["arrays"]["images"]
    bits = np.frombuffer(numbers, np.uint8)[entry["offset"] :][: entry["size"]]
    labels = tiny.opened.dataset.test.labels
    first = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    images = np.unpackbits(bits.reshape(100, 98), axis=1)
    np.testing.assert_array_equal(images[::10], tiny.program.test[first])


def test_the_same_run_gives_the_same_bytes(tiny, tmp_path):
    pages = [
        write_explorer(tiny, tmp_path / name, most_bytes=MEGABYTE).path.read_bytes()
        for name in ("a.html", "b.html")
    ]
    assert pages[0] == pages[1]


def test_no_text_of_a_run_is_markup(tiny, tmp_path):
    name = '</script><b id="words">&amp;'
    dataset = tiny.opened.dataset._replace(name=name)
    run = tiny._replace(opened=tiny.opened._replace(dataset=dataset))
    page = write_explorer(
        run, tmp_path / "a.html", most_bytes=MEGABYTE
    ).path.read_text()
    assert "</script><b" not in page
    assert json.loads(part(page, "words"))["name"] == name


def test_what_a_page_cannot_show_is_refused(data):
    config = small(posterior="dirichlet", latent_dim=3)
    opened = Opened(config, data, None, {}, 0)
    with pytest.raises(ConfigError, match="dirichlet, whose z lies on a simplex"):
        for_page(opened)
    colour = opened._replace(
        config=small(), dataset=data._replace(name="cifar10", image_shape=(32, 32, 3))
    )
    with pytest.raises(ConfigError, match="cifar10 has images of 3 colours"):
        for_page(colour)


def test_wrong_usage_is_one_line(tmp_path, capsys):
    assert explore.main([f"--workdir={tmp_path / 'none'}"]) == 1
    assert explore.main([f"--workdir={tmp_path}"]) == 1
    assert explore.main([f"--workdir={tmp_path}", "--megabytes=0"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "none is not a directory" in errors[0]
    assert "holds no run" in errors[1]
    assert "'0' is not a whole number, 1 or more" in errors[2]
