"""Tasks: which pixels are seen, by hand; what else is seen; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import ConfigError, DataError
from experiments.restoration.tasks import TASKS, make_tasks

KEY = jax.random.key(0)


def tasks(names=TASKS, image_shape=(5, 4), binary=True, **changes):
    settings = {
        "masks": ["half"],
        "rates": [0.1],
        "noises": [0.3],
        "factors": [2],
    }
    return make_tasks(
        names, image_shape=image_shape, binary=binary, **{**settings, **changes}
    )


def task(name, image_shape=(5, 4), binary=True, **changes):
    [found] = tasks([name], image_shape, binary, **changes)
    return found


def seen_by(made, image_shape, key=KEY) -> np.ndarray:
    """Which pixels are seen, as the channel has it; the others are asked for."""
    seen = made.channel(key, made.arrays)
    observed = np.asarray(seen.observe.observed)
    np.testing.assert_array_equal(seen.target, ~observed)
    assert observed.shape == (np.prod(image_shape),)
    return observed.reshape(image_shape)


def pixels(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


@pytest.mark.parametrize(
    ("mask", "rows"),
    [
        ("half", ("####", "####", "....", "....", "....")),
        ("quadrant", ("####", "####", "##..", "##..", "##..")),
        ("quadrants", ("##..", "##..", "....", "....", "....")),
    ],
)
def test_masks_by_hand(mask, rows):
    made = task("inpaint", masks=[mask])
    assert made.name == f"inpaint-{mask}"
    np.testing.assert_array_equal(seen_by(made, (5, 4)), pixels(*rows))
    again = seen_by(made, (5, 4), jax.random.key(7))
    np.testing.assert_array_equal(again, pixels(*rows))


@pytest.mark.parametrize(
    ("factor", "rows"),
    [
        (2, (".....", ".#.#.", ".....", ".#.#.", ".....", ".#.#.", ".....")),
        (3, (".....", ".#..#", ".....", ".....", ".#..#", ".....", ".....")),
        (5, (".....", ".....", "..#..", ".....", ".....", ".....", ".....")),
    ],
)
def test_one_pixel_of_a_block_is_seen(factor, rows):
    made = task("superresolve", (7, 5), factors=[factor])
    np.testing.assert_array_equal(seen_by(made, (7, 5)), pixels(*rows))


def test_a_mask_of_a_file(tmp_path):
    mask = np.eye(5, 4, dtype=bool)
    np.save(tmp_path / "diagonal.npy", mask)
    made = task("inpaint", masks=[str(tmp_path / "diagonal.npy")])
    assert made.name == "inpaint-diagonal"
    assert "diagonal.npy" in made.label
    np.testing.assert_array_equal(seen_by(made, (5, 4)), mask)
    with pytest.raises(DataError, match="5 x 4 pixels, expected 4 x 5"):
        task("inpaint", (4, 5), masks=[str(tmp_path / "diagonal.npy")])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_so_many_pixels_are_missing_at_random(share):
    made = task("inpaint", (200, 150), masks=[f"random:{share}"])
    missing = ~seen_by(made, (200, 150))
    deviation = np.sqrt(share * (1 - share) / missing.size)
    assert abs(missing.mean() - share) < 4.9 * deviation
    # Neighbours are independent: both are missing as often as the product says.
    both = (missing[1:] & missing[:-1]).mean()
    variance = share**2 * (1 - share**2) + 2 * share**3 * (1 - share)
    assert abs(both - share**2) < 4.9 * np.sqrt(variance / missing.size)
    other = ~seen_by(made, (200, 150), jax.random.key(1))
    agree = (missing == other).mean()
    expected = share**2 + (1 - share) ** 2
    error = np.sqrt(expected * (1 - expected) / missing.size)
    assert abs(agree - expected) < 4.9 * error
    np.testing.assert_array_equal(missing, ~seen_by(made, (200, 150)))


@pytest.mark.parametrize("mask", ["half", "quadrants", "random:0.5"])
def test_all_colours_of_a_pixel_are_missing_together(mask):
    grey = seen_by(task("inpaint", (6, 4), masks=[mask]), (6, 4))
    colour = seen_by(task("inpaint", (6, 4, 3), masks=[mask]), (6, 4, 3))
    np.testing.assert_array_equal(colour, grey[..., None].repeat(3, axis=2))
    assert 0 < grey.sum() < 24


def test_all_colours_of_a_subsampled_pixel_are_seen():
    found = seen_by(task("superresolve", (4, 4, 3)), (4, 4, 3))
    expected = pixels("....", ".#.#", "....", ".#.#")
    np.testing.assert_array_equal(found, expected[..., None].repeat(3, axis=2))


def drawn(made, x: jax.Array, num: int) -> np.ndarray:
    """Draws of what is seen of x; every pixel is asked for."""
    seen = made.channel(KEY, made.arrays)
    assert np.asarray(seen.target).tolist() == [True] * len(x)
    keys = jax.random.split(KEY, num)
    return np.asarray(jax.vmap(seen.observe.given(x).sample)(keys))


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_so_many_pixels_are_flipped(rate):
    x = (jnp.arange(20) % 3 == 0).astype(jnp.float32)
    made = task("denoise", rates=[rate])
    ys = drawn(made, x, 4000)
    assert set(np.unique(ys)) == {0, 1}
    flipped = ys != np.asarray(x)
    error = np.sqrt(rate * (1 - rate) / len(ys))
    assert np.abs(flipped.mean(axis=0) - rate).max() < 5.5 * error
    assert made.name == f"denoise-{rate}"
    assert made.label == f"{100 * rate:g} % of the pixels flipped"


def test_grey_pixels_get_gaussian_noise():
    x = jnp.linspace(0, 1, 20)
    made = task("denoise", binary=False, noises=[0.3])
    noise = drawn(made, x, 4000) - np.asarray(x)
    assert np.abs(noise.mean(axis=0)).max() < 5.5 * 0.3 / np.sqrt(4000)
    assert noise.std() == pytest.approx(0.3, rel=5 / np.sqrt(2 * noise.size))
    assert (made.name, made.kind) == ("denoise-0.3", "noisy")


def test_means_of_blocks_by_hand_those_at_the_edges_are_smaller():
    x = jnp.arange(15.0)  # rows 0 1 2, 3 4 5, ...
    made = task("superresolve", (5, 3), binary=False)
    observe = made.channel(KEY, made.arrays).observe
    blocks = [[0, 1, 3, 4], [2, 5], [6, 7, 9, 10], [8, 11], [12, 13], [14]]
    expected = [np.mean(block) for block in blocks]
    np.testing.assert_allclose(observe.given(x).mean, expected, rtol=1e-6)
    ys = drawn(made, x, 1000) - np.array(expected)
    assert ys.std() == pytest.approx(0.01, rel=0.1)
    # That no two blocks have a pixel in common is said of all of them rightly.
    assert observe.rows_apart
    assert (np.count_nonzero(made.arrays, axis=0) == 1).all()


def test_means_of_blocks_are_of_each_colour_alone():
    image = np.random.default_rng(0).uniform(size=(4, 6, 3)).astype(np.float32)
    made = task("superresolve", image.shape, binary=False)
    seen = made.channel(KEY, made.arrays)
    means = image.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3))
    found = seen.observe.given(jnp.asarray(image.ravel())).mean
    np.testing.assert_allclose(found, means.ravel(), rtol=1e-5)
    assert np.asarray(seen.target).tolist() == [True] * 72


@pytest.mark.parametrize("binary", [True, False])
def test_names_and_labels_tell_tasks_apart(binary):
    made = tasks(
        image_shape=(28, 28),
        binary=binary,
        masks=["half", "quadrant", "quadrants", "random:0.5", "random:0.8"],
        rates=[0.1, 0.2],
        noises=[0.1, 0.3],
        factors=[2, 4],
    )
    assert [one.name.partition("-")[0] for one in made] == (
        ["inpaint"] * 5 + ["denoise"] * 2 + ["superresolve"] * 2
    )
    for one in made:
        assert "/" not in one.name
        assert ":" not in one.name  # names of files
    assert len({one.name for one in made}) == len({one.label for one in made}) == 9
    # Those of one kind share a program: all that tells them apart is in the arrays.
    shapes = {}
    for one in made:
        shape = jax.tree.map(jnp.shape, one.arrays)
        assert shapes.setdefault(one.kind, shape) == shape
    assert len(shapes) == (2 if binary else 4)


def test_two_tasks_of_one_name_are_refused_or_told_apart(tmp_path):
    masks = []
    for folder, mask in (("a", np.eye(5, 4)), ("b", np.eye(5, 4, 1))):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "mask.npy", mask)
        masks.append(str(tmp_path / folder / "mask.npy"))
    np.save(tmp_path / "half.npy", np.eye(5, 4))
    for changes in (
        {"names": ["inpaint"], "masks": masks},
        {"names": ["inpaint"], "masks": ["half", str(tmp_path / "half.npy")]},
        {"names": ["denoise"], "rates": [0.1, 0.1 + 1e-9]},
    ):
        # results.json and the folders have the name as a key.
        try:
            made = tasks(**changes)
        except ConfigError as error:
            assert "name" in str(error)  # noqa: PT017
        else:
            assert len({one.name for one in made}) == 2


def test_a_file_without_a_suffix_names_no_folder(tmp_path):
    from PIL import Image

    mask = tmp_path / "folder" / "mask"
    mask.parent.mkdir()
    Image.fromarray(255 * np.eye(5, 4, dtype=np.uint8)).save(mask, "PNG")
    assert task("inpaint", masks=[str(mask)]).name == "inpaint-mask"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ["sharpen"]}, "sharpen.*inpaint, denoise, superresolve"),
        ({"masks": ["random:0"]}, "random:0: '0' is not between 0 and 1"),
        ({"masks": ["random:1"]}, "'1' is not between 0 and 1"),
        ({"masks": ["random:-0.5"]}, "'-0.5' is not between"),
        ({"masks": ["random:nan"]}, "'nan' is not between"),
        ({"masks": ["random:"]}, "random:: '' is not between"),
        ({"masks": ["random:half"]}, "'half' is not between"),
        ({"factors": [1]}, "factor=1: expected from 2 to 4, the shorter side"),
        ({"factors": [5]}, "factor=5: expected from 2 to 4"),
        ({"factors": [5], "binary": False}, "factor=5: expected from 2 to 4"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(change, said):
    with pytest.raises(ConfigError, match=said) as info:
        tasks(**change)
    assert "\n" not in str(info.value)


def test_a_word_that_is_no_mask_is_refused():
    with pytest.raises(DataError, match="expected half, quadrant, quadrants, random:"):
        tasks(masks=["halves"])


def test_a_mask_of_one_row_is_not_told_to_use_a_smaller_factor():
    with pytest.raises(ConfigError, match="nothing to be seen") as info:
        tasks(["inpaint"], image_shape=(1, 8))
    assert "factor" not in str(info.value)
