"""The page in headless Chromium: its numbers are JAX's, and what one does shows."""

import base64
import json
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small
from selenium import webdriver
from selenium.common.exceptions import SessionNotCreatedException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from untrained import untrained, write_untrained

import aevb
from experiments import explore
from experiments.config import ACTIVATIONS, GENERIC_POSTERIORS, POSTERIORS
from experiments.explorer.codes import SCORES, prior_quantiles
from experiments.explorer.page import write_explorer
from experiments.program import load_dataset
from experiments.program.posteriors import family_of, prior_shape
from experiments.training.opened import Opened, load_run

pytestmark = pytest.mark.usefixtures("cache")

WHITE, FILLED = np.array([255, 255, 255]), np.array([120, 190, 255])


class Browser:
    """A Chromium, a page in it, and what a person does there."""

    def __init__(self, driver, path):
        self.driver, self.url = driver, f"file://{path}"

    def open(self):
        self.driver.get(self.url)
        there = "return Boolean(window.explorer?.ready)"
        WebDriverWait(self.driver, 60).until(
            lambda driver: driver.execute_script(there)
        )
        wait = "window.explorer.ready.then(arguments[0], arguments[0])"
        self.driver.execute_async_script(wait)
        return self

    def reset(self):
        """A whole test image, and the place of its code."""
        self.run("document.querySelectorAll('#examples button')[35].click()")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def press(self, text):
        self.driver.find_element(By.XPATH, f"//button[.='{text}']").click()

    def each(self, function, rows):
        """A function of the page at each row. `[n, ...]`"""
        rows = np.asarray(rows, float).tolist()
        return np.array(self.run(f"return arguments[0].map({function})", rows))

    def place(self):
        return np.array(self.run("return window.explorer.place()"))

    def pixels(self, name):
        """`[H, W, 3]` of a canvas."""
        height, width, data = self.run(
            "const c = document.getElementById(arguments[0]);"
            "const {data} = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
            "let text = ''; for (const byte of data) text += String.fromCharCode(byte);"
            "return [c.height, c.width, btoa(text)]",
            name,
        )
        array = np.frombuffer(base64.b64decode(data), np.uint8)
        return array.reshape(height, width, 4)[..., :3].astype(int)

    def drag(self, name, points):
        """The pointer down, along points of the unit square, y downwards, and up."""
        element = self.find(name)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        width, height = element.rect["width"], element.rect["height"]
        actions = ActionChains(self.driver, duration=5)
        for i, (x, y) in enumerate(points):
            offset = round((x - 0.5) * width), round((y - 0.5) * height)
            actions.move_to_element_with_offset(element, *offset)
            if i == 0:
                actions.click_and_hold()
        actions.release().perform()

    def errors(self):
        """What the console has of errors, since it was last read."""
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def requests(self):
        """Where the page asked for something, since it was last read."""
        log = [
            json.loads(entry["message"]) for entry in self.driver.get_log("performance")
        ]
        return {
            entry["message"]["params"]["request"]["url"]
            for entry in log
            if entry["message"]["method"] == "Network.requestWillBeSent"
        }


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no Chromium with its chromedriver: the page is not opened")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "window-size=1000,800", f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    try:
        driver = webdriver.Chrome(options, Service(chromedriver))
    except SessionNotCreatedException as error:
        pytest.skip(f"Chromium does not start: {error.msg}")
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def no_errors(driver):
    """Each test ends with an empty console."""
    yield
    assert Browser(driver, "").errors() == []


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A run of two latents, and the page that the command makes of it."""
    workdir = tmp_path_factory.mktemp("runs") / "untrained"
    write_untrained(workdir, small(), gain=2.0)
    assert explore.main([f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def run(workdir) -> Opened:
    return load_run(workdir)


@pytest.fixture(scope="module")
def page(driver, workdir):
    return Browser(driver, workdir / "explorer.html").open()


@pytest.fixture(scope="module")
def sliders(tmp_path_factory):
    """A page of five latents that are gamma variables, of a run of first weights."""
    config = small(posterior="gamma", prior_shape=2.0, latent_dim=5, activation="silu")
    dataset = load_dataset(config)
    few = dataset.test._replace(
        images=dataset.test.images[:200], labels=dataset.test.labels[:200]
    )
    dataset = dataset._replace(test=few)
    run = untrained(config, dataset, gain=2.0)
    path = tmp_path_factory.mktemp("pages") / "sliders.html"
    write_explorer(run, path, most_bytes=10**6)
    return run.opened, path


def means(run, zs):
    def mean(z):
        return run.program.model.decode(run.params, z).mean

    return np.asarray(jax.jit(jax.vmap(mean))(jnp.asarray(zs, jnp.float32)))


def codes(run, xs):
    def q(x):
        return run.program.model.encode(run.params, x)

    return jax.jit(jax.vmap(q))(jnp.asarray(xs, jnp.float32))


def test_the_decoder_is_that_of_jax(page, run):
    """At draws from the prior, at codes of test images, and far from both."""
    rng = np.random.default_rng(0)
    of_images = codes(run, run.program.test[:100]).mean
    zs = np.concatenate(
        [rng.normal(size=(100, 2)), of_images, 6 * rng.normal(size=(50, 2))]
    )
    found = page.each("z => window.explorer.decode(z)", zs.astype("f4"))
    assert found.shape == (250, 784)
    assert np.ptp(found, axis=0).max() > 0.9
    assert np.abs(found - means(run, zs.astype("f4"))).max() < 1e-4


def test_the_encoder_is_that_of_jax(page, run):
    """To what weights of 16 bits give: 2e-5 of the largest of a row, of 100 pixels."""
    xs = np.asarray(run.program.test[:100], float)
    q = codes(run, xs)
    found = page.each("x => window.explorer.encode(x).mean", xs)
    np.testing.assert_allclose(found, q.mean, atol=1e-3)
    found = page.each("x => window.explorer.encode(x).sd", xs)
    np.testing.assert_allclose(found, np.exp(q.log_scale), rtol=1e-3)


def test_the_page_has_the_bound_of_jax(page, run):
    """KL in closed form; the rest to what 500 draws give."""
    xs = np.asarray(run.program.test[:4], float)
    found = page.run(
        "return arguments[0].map(x => window.explorer.bound(x, 500))", xs.tolist()
    )
    q = codes(run, xs)
    zeros = jnp.zeros(2)
    kl = jax.vmap(lambda q: aevb.kl_divergence(q, aevb.DiagNormal(zeros, zeros)))(q)
    np.testing.assert_allclose(
        [f["kl"]["mean"] for f in found], kl, rtol=1e-3, atol=1e-3
    )

    model = run.program.model
    encode, decode = (partial(f, run.params) for f in (model.encode, model.decode))
    keys = jax.random.split(jax.random.key(0), (4, 500))
    one = partial(aevb.elbo, encode, decode)
    batched = jax.jit(jax.vmap(jax.vmap(one, (0, None))))
    draws = np.asarray(batched(keys, jnp.asarray(xs, "f4")).value)
    error = np.std(draws, axis=1) / np.sqrt(500)
    difference = [f["value"]["mean"] for f in found] - np.mean(draws, axis=1)
    # Two estimates, and the rounding of the encoder.
    assert (np.abs(difference) < 4.9 * np.sqrt(2) * error + 0.02).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_flax(page, name):
    x = np.concatenate([np.linspace(-4, 4, 101), [-80, -1e-3, 1e-3, 80]]).astype("f4")
    found = page.each(f"window.explorer.parts.ACTIVATIONS['{name}']", x)
    expected = ACTIVATIONS[name](jnp.asarray(x))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


# What makes a family narrower: less of a scale, or more of a concentration.
SCALES = ("normal", "laplace", "logistic", "student_t", "log_normal")
FAMILIES = [name for name in POSTERIORS if name != "dirichlet"]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_those_of_aevb(page, name, z_score):
    """Densities at draws, means; and of draws of q, E[r(z) / q(z)] = 1 of a near r."""
    config = small(
        posterior=name,
        latent_dim=1,
        estimator="sgvb_a" if name in GENERIC_POSTERIORS else "sgvb_b",
    )
    family = family_of(config)
    heads = np.random.default_rng(0).uniform(-1, 1, (family.num_parameters, 20))
    near = heads.copy()
    near[0] += 0.1
    near[1] += -0.3 if name in SCALES else 0.3
    z, log_q, mean, draws, ratios = page.run(
        """
        const [name, heads, near, shape] = arguments;
        const { FAMILIES, Random } = window.explorer.parts;
        const family = FAMILIES[name];
        const random = new Random(1);
        const all = heads[0].map((_, j) => {
          const of = (own) => family.of(own.map((head) => head[j]), shape);
          const [q, r] = [of(heads), of(near)];
          const draws = Array.from({ length: 2000 }, () => family.sample(random, ...q));
          const log = (z) => family.logDensity(z, ...r) - family.logDensity(z, ...q);
          const [z] = draws;
          return [z, family.logDensity(z, ...q), family.mean(...q), draws,
                  draws.map((value) => Math.exp(log(value)))];
        });
        return all[0].map((_, k) => all.map((row) => row[k]));
        """,
        name,
        heads.tolist(),
        near.tolist(),
        prior_shape(config),
    )

    @jax.jit
    @jax.vmap
    def expected(heads, z):
        q = family.posterior(*heads[:, None])
        return q.log_prob(z[None]), q.mean[0]

    densities, means = expected(jnp.asarray(heads.T, "f4"), jnp.asarray(z, "f4"))
    np.testing.assert_allclose(log_q, densities, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean, means, rtol=1e-4, atol=1e-5)
    assert np.abs(z_score(np.transpose(ratios), 1)).max() < 4.9
    if name != "student_t":  # whose draws may have no variance
        assert np.abs(z_score(np.transpose(draws), np.asarray(mean))).max() < 4.9


def test_a_drag_over_the_plane_changes_the_picture(page, run):
    """To that of the z under the pointer: equal parts of the prior (Fig. 4)."""
    page.reset()
    before = page.pixels("picture")
    for point in [(0.3, 0.2), (0.8, 0.7)]:
        page.drag("map", [(0.5, 0.5), (0.6, 0.4), point])
        z = page.place()
        # The map has a margin of 52 of 1012 on the left and below.
        x, y = (point[0] * 1012 - 52) / 960, 1 - point[1] * 1012 / 960
        expected = jax.scipy.stats.norm.ppf(jnp.array([x, y]))
        np.testing.assert_allclose(z, expected, atol=0.02)
        shown = page.pixels("picture")
        mean = means(run, [z])[0].reshape(28, 28, 1)
        np.testing.assert_allclose(shown, 255 * mean * np.ones(3), atol=0.51)
        assert np.abs(shown - before).max() > 20
        before = shown
    assert f"{z[0]:.2f}".replace("-", "−") in page.find("where").text


def test_arrow_keys_and_a_finger_move_it_too(page):
    page.reset()
    place = page.place()
    page.find("map").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    right = page.place()
    assert right[0] > place[0]
    assert right[1] == pytest.approx(place[1], abs=1e-6)
    page.find("map").send_keys(Keys.SHIFT, Keys.ARROW_DOWN)
    down = page.place()
    assert down[1] < right[1]
    box = page.run("return document.getElementById('map').getBoundingClientRect()")
    for kind, share in (("touchStart", 0.4), ("touchMove", 0.75), ("touchEnd", None)):
        x, y = (box[side] + (share or 0) * box["width"] for side in ("left", "top"))
        points = [] if share is None else [{"x": x, "y": y}]
        page.driver.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )
    expected = jax.scipy.stats.norm.ppf((0.75 * 1012 - 52) / 960)
    assert page.place()[0] == pytest.approx(float(expected), abs=0.02)


def test_a_drawing_is_encoded_as_it_is_drawn(page, run):
    page.reset()
    page.press("Clear")
    assert page.find("blank").is_displayed()
    places = [page.place()]
    for stroke in ([(0.5, 0.2), (0.5, 0.8)], [(0.3, 0.3), (0.7, 0.3), (0.7, 0.6)]):
        page.drag("editor", stroke)
        x = page.pixels("input")[..., 0] / 255
        assert set(np.unique(x)) == {0, 1}
        q = codes(run, x.reshape(1, -1))
        np.testing.assert_allclose(page.place(), q.mean[0], atol=1e-3)
        places.append(page.place())
    assert 25 < x.sum() < 150
    assert x[6:22, 13:15].all()  # the first stroke
    assert min(np.abs(np.diff(places, axis=0)).max(axis=1)) > 0.01
    WebDriverWait(page.driver, 10).until(
        lambda _: "…" not in page.find("bound-value").text
    )
    value = float(page.find("bound-value").text.split()[0].replace("−", "-"))
    bound = page.run(
        "return window.explorer.bound(arguments[0], 2000).value", x.ravel().tolist()
    )
    assert value == pytest.approx(bound["mean"], abs=4.9 * 6 * bound["error"] + 0.1)


def test_what_is_hidden_is_filled_in_and_what_is_seen_is_kept(page, run):
    page.reset()
    page.find("examples").find_elements(By.TAG_NAME, "button")[72].click()
    x = page.pixels("input")[..., 0] / 255
    labels = run.dataset.test.labels
    seventh = int(np.flatnonzero(labels == 7)[2])
    np.testing.assert_array_equal(x.ravel(), run.program.test[seventh])
    page.press("the lower half")
    assert not page.find("encoded").is_displayed()
    WebDriverWait(page.driver, 30).until(
        lambda _: "Step 64 of 64" in page.find("steps").text
    )
    editor = page.pixels("editor")
    np.testing.assert_array_equal(editor[:14], x[:14, :, None] * WHITE)
    assert editor[14:].min() > 90  # no ink of the image in the pattern
    mean = page.pixels("mean")
    np.testing.assert_array_equal(mean[:14], x[:14, :, None] * WHITE)
    level = mean[14:, :, 2:] / 255
    np.testing.assert_allclose(mean[14:], level * FILLED, atol=1)
    assert level.max() > 0.5
    assert len(page.find("draws").find_elements(By.TAG_NAME, "canvas")) == 6
    # A draw is a place: choosing it goes there.
    page.find("draws").find_element(By.TAG_NAME, "button").click()
    picture = means(run, [page.place()])[0].reshape(28, 28)
    draw = page.run("return document.querySelector('#draws canvas').id = 'first-draw'")
    np.testing.assert_allclose(
        page.pixels(draw)[14:, :, 2], 255 * picture[14:], atol=0.51
    )
    page.press("nothing")
    assert page.find("encoded").is_displayed()


def test_a_brush_hides_what_it_touches(page):
    page.reset()
    x = page.pixels("input")[..., :1] / 255 * WHITE
    page.driver.find_element(By.CSS_SELECTOR, "label:has([value=hide])").click()
    page.drag("editor", [(0.2, 0.5), (0.8, 0.5)])
    shown = page.pixels("editor")
    is_hidden = np.any(shown != x, axis=-1)
    assert is_hidden[13:15, 6:22].all()
    assert not is_hidden[:10].any()
    assert not is_hidden[18:].any()


def test_draws_of_what_is_hidden_are_those_of_the_posterior(page, run, z_score):
    """Against quadrature over the plane; pseudo-Gibbs alone is refused by this."""
    rng = np.random.default_rng(0)
    x = (rng.uniform(size=784) < means(run, [[0.7, -0.4]])[0]).astype(float)
    seen = np.arange(784) < 392
    axis = np.linspace(-4.5, 4.5, 121)
    zs = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mean = means(run, zs).astype(float).clip(1e-7, 1 - 1e-7)
    log_weight = np.log(mean[:, seen]) @ x[seen] + np.log1p(-mean[:, seen]) @ (
        1 - x[seen]
    )
    log_weight -= 0.5 * (zs**2).sum(axis=1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    found = page.run(
        "return window.explorer.complete(...arguments)",
        x.tolist(),
        seen.tolist(),
        {"chains": 200, "steps": 32, "seed": 1},
    )
    assert np.abs(z_score(jnp.asarray(found["zs"]), weight @ zs)).max() < 4.9
    draws = means(run, found["zs"])[:, ~seen].astype(float)
    varies = draws.std(axis=0) > 1e-3
    expected = (weight @ mean)[~seen]
    assert np.abs(z_score(draws[:, varies], expected[varies])).max() < 4.9
    np.testing.assert_array_equal(np.array(found["mean"])[seen], x[seen])
    error = draws.std(axis=0) / np.sqrt(200)
    difference = np.abs(np.array(found["mean"])[~seen] - expected)
    assert (difference < 4.9 * error + 1e-3).all()


def test_sliders_move_along_the_axes_of_any_family(driver, sliders):
    """In normal scores: one score moves as the slider says, the others stay."""
    run, path = sliders
    page = Browser(driver, path).open()
    zs = np.random.default_rng(0).gamma(2, size=(100, 5)) / 2
    found = page.each("z => window.explorer.decode(z)", zs)
    assert np.abs(found - means(run, zs)).max() < 1e-4
    table = prior_quantiles(run.config)

    def along():
        contents = page.run(
            "const {axes, centre, spread} = window.explorer.contents.arrays;"
            "return [axes, centre, spread].map((a) => Array.from(a))"
        )
        axes, centre, spread = map(np.array, contents)
        scores = np.interp(page.place(), table, SCORES)
        return axes.reshape(5, 5) @ (scores - centre) / spread

    before, picture = along(), page.pixels("picture")
    slider = page.find("axis-3")
    slider.send_keys(Keys.HOME)
    after = along()
    assert after[2] == pytest.approx(-3, abs=0.02)
    np.testing.assert_allclose(after[[0, 1, 3, 4]], before[[0, 1, 3, 4]], atol=0.02)
    assert np.abs(page.pixels("picture") - picture).max() > 5
    page.press("Draw from the prior")
    assert np.abs(along() - after).max() > 0.1


def test_a_walk_goes_on_until_it_is_stopped(page):
    page.reset()
    page.press("Walk between test images")
    here = page.place()
    WebDriverWait(page.driver, 5, 0.05).until(
        lambda _: np.abs(page.place() - here).max() > 1e-3
    )
    assert "a test image of" in page.find("walking").text
    page.press("Stop")
    here = page.place()
    page.driver.execute_async_script("setTimeout(arguments[0], 100)")
    np.testing.assert_array_equal(page.place(), here)


def test_nothing_is_wider_than_the_window_and_all_has_a_name(page):
    page.reset()
    for width in (400, 700, 1400):
        page.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        assert page.run("return innerWidth") == width
        assert page.run("return document.documentElement.scrollWidth") <= width
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    controls = page.driver.find_elements(
        By.CSS_SELECTOR, "button, input, [role=img], [role=application]"
    )
    # There are a hundred test images.
    shown = [control for control in controls[:50] if control.is_displayed()]
    assert len(shown) > 20
    assert all(control.accessible_name.strip() for control in shown)


def test_no_request_leaves_the_page(page):
    """Not in use, and not when a script asks for one."""
    page.requests()
    page.open()
    page.drag("map", [(0.4, 0.4), (0.6, 0.6)])
    page.press("the left half")
    page.press("nothing")
    asked = {url for url in page.requests() if not url.startswith("data:")}
    assert asked == {page.url}
    refused = page.driver.execute_async_script(
        "document.addEventListener('securitypolicyviolation',"
        "  (event) => arguments[0](event.effectiveDirective), {once: true});"
        "fetch('http://127.0.0.1:9/').catch(() => {})"
    )
    assert refused == "connect-src"
    assert page.requests() == set()
    assert all("Content Security Policy" in error for error in page.errors())


def test_a_damaged_page_says_so(driver, workdir, tmp_path):
    text = (workdir / "explorer.html").read_text()
    at = text.index('id="data">') + 5000
    other = "A" if text[at] != "A" else "B"
    path = tmp_path / "damaged.html"
    path.write_text(text[:at] + other + text[at + 1 :])
    page = Browser(driver, path).open()
    assert "This file is damaged" in page.find("error").text
    page.errors()
