"""What every picture of a report must be."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Draw = Callable[[Path], Path]


@pytest.fixture(scope="module", autouse=True)
def every_picture_is_drawn(drawn: None) -> None:
    pass


@pytest.fixture
def check_picture(tmp_path: Path) -> Callable[[Draw, tuple[int, int]], None]:
    """Draws a picture twice: a small PNG of the size, the same bytes, no leftovers."""

    def check(draw: Draw, size: tuple[int, int]) -> None:
        path = tmp_path / "figures" / "first.png"
        assert draw(path) == path
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", size)
            assert image.info.keys() <= {"transparency"}  # no date, no version
            assert image.convert("L").getextrema()[0] < 128  # something is drawn
        assert path.stat().st_size < 300_000
        assert draw(path.with_name("second.png")).read_bytes() == path.read_bytes()
        names = sorted(file.name for file in path.parent.iterdir())
        assert names == ["first.png", "second.png"]

    return check
