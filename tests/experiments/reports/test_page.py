"""The report: one page that stands alone, says what it was given, and nothing else."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from experiments.reports.images import image_grid
from experiments.reports.page import Picture, write_report
from experiments.reports.tables import Table

EVIL = "<script>alert(1)</script> & \"quotes\" 'too'"
VOID = {"meta", "img"}


class _Page(HTMLParser):
    """Collects the tags and the text of a page, and holds it to be well nested."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def png(tmp_path):
    return image_grid(
        tmp_path / "pictures" / "a.png", np.eye(8)[None], columns=1, title="Samples"
    )


def _write(path, png, **changes):
    arguments = {
        "title": f"AEVB {EVIL}",
        "summary": [
            ("log p(x), test", "-86.53 ± 0.08", f"nats {EVIL}"),
            ("bound", np.float32(-88.25), "nats per datapoint"),
        ],
        "tables": [
            Table(f"Numbers {EVIL}", ["name", "nats"], [[EVIL, -1.5], ["b", 2]])
        ],
        "figures": [
            Picture(png, f"Samples {EVIL}"),
            Picture(png, "Again", "eight dots"),
        ],
        "config": {"seed": 0, "data": {"path": None, "name": EVIL}, "dims": (600, 600)},
        "notes": [EVIL],
    }
    return write_report(path, **{**arguments, **changes})


def test_the_page_is_well_formed_and_holds_what_it_was_given(tmp_path, png):
    path = _write(tmp_path / "new" / "report.html", png)
    assert path == tmp_path / "new" / "report.html"
    page = _Page(path)
    text = "".join(page.texts)
    assert text.count(EVIL) == 7  # tab, heading, remark, note, table, cell, caption
    assert "-86.53 ± 0.08" in text
    assert "-88.25" in text
    start = page.texts.index("Config (4 settings)")
    settings = [text for text in page.texts[start + 1 :] if text.strip()]
    assert settings == [
        *("setting", "value"),
        *("data.name", json.dumps(EVIL)),
        *("data.path", "null"),
        *("dims", "[600, 600]"),
        *("seed", "0"),
    ]


def test_nothing_that_was_given_becomes_markup(tmp_path, png):
    page = _Page(_write(tmp_path / "a.html", png))
    assert not page.all("script")
    assert [image["alt"] for image in page.all("img")] == [
        f"Samples {EVIL}",
        "eight dots",
    ]


def test_the_page_refers_to_nothing_outside_itself(tmp_path, png):
    path = _write(tmp_path / "a.html", png)
    page = _Page(path)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|//cdn", source)
    assert str(tmp_path) not in source


def test_a_picture_is_embedded_byte_for_byte(tmp_path, png):
    page = _Page(_write(tmp_path / "a.html", png))
    image = page.all("img")[0]
    prefix, data = image["src"].split(",")
    assert prefix == "data:image/png;base64"
    assert base64.b64decode(data, validate=True) == png.read_bytes()
    assert (image["width"], image["height"]) == ("146", "160")


def test_the_same_input_gives_the_same_bytes(tmp_path, png):
    first = _write(tmp_path / "a.html", png).read_bytes()
    config = {"dims": (600, 600), "data": {"name": EVIL, "path": None}, "seed": 0}
    assert _write(tmp_path / "b.html", png, config=config).read_bytes() == first
    assert _write(tmp_path / "c.html", png, notes=["else"]).read_bytes() != first


def test_a_page_of_nothing_is_still_a_page(tmp_path):
    nothing = {"summary": [], "tables": [], "figures": [], "config": {}, "notes": []}
    page = _Page(_write(tmp_path / "a.html", None, **nothing))
    assert not page.all("img")
    assert "Config (0 settings)" in page.texts


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failed_write_leaves_the_old_page(tmp_path, png, monkeypatch, step):
    folder = tmp_path / "run"
    path = _write(folder / "report.html", png)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="disk full"):
        _write(path, png, notes=["new"])
    assert path.read_bytes() == before
    assert [file.name for file in folder.iterdir()] == ["report.html"]


def test_bad_input_is_refused_before_anything_is_written(tmp_path, png):
    text = tmp_path / "a.png"
    text.write_text("not a picture")
    path = tmp_path / "run" / "report.html"
    with pytest.raises(ValueError, match="is not a PNG file"):
        _write(path, png, figures=[Picture(text, "caption")])
    with pytest.raises(FileNotFoundError):
        _write(path, png, figures=[Picture(tmp_path / "b.png", "caption")])
    with pytest.raises(ValueError, match=r"1 cells, the table has 2 columns \(a, b\)"):
        _write(path, png, tables=[Table("t", ["a", "b"], [[1]])])
    assert not path.parent.exists()
