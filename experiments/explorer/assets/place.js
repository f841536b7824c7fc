// Where the page is, and what moves it besides the map: sliders, draws, walks.

class Place {
  constructor(u) {
    this.u = u;
    this.listeners = [];
  }

  // `listener(u, source)` is told of every move, and who made it.
  listen(listener) {
    this.listeners.push(listener);
  }

  move(u, source) {
    this.u = u;
    for (const listener of this.listeners) listener(u, source);
  }
}

// The decoder's mean, and the numbers of z.
function showPicture(explorer, place) {
  const canvas = document.getElementById("picture");
  const text = document.getElementById("where");
  const { dim, quantiles } = explorer.space;
  const name = quantiles ? "normal scores: ‖u‖" : "‖z‖";
  const show = (u) => {
    paint(canvas, explorer, explorer.meanAt(u));
    const z = Array.from(explorer.space.toZ(u));
    text.textContent =
      dim <= 4
        ? `z = (${z.map((value) => fixed(value, 2)).join(", ")})`
        : `${name} = ${fixed(Math.hypot(...u), 2)}, that of the prior ` +
          `about ${fixed(Math.sqrt(dim), 2)}`;
  };
  place.listen(show);
}

function makeSliders(explorer, place) {
  const { space, hasCodes } = explorer;
  const list = document.getElementById("sliders");
  const rows = Array.from(space.spread, (_, k) => {
    const input = element("input", {
      type: "range",
      min: -AXIS_LIMIT,
      max: AXIS_LIMIT,
      step: 0.01,
      id: `axis-${k + 1}`,
    });
    const output = element("output", { htmlFor: input.id });
    const share = hasCodes
      ? `axis ${k + 1}, ${fixed(100 * space.shares[k], 1)} %`
      : `z${k + 1}`;
    input.addEventListener("input", () => {
      place.move(space.moved(place.u, k, Number(input.value)), input);
    });
    list.append(
      element(
        "div",
        { className: "slider" },
        element("label", { htmlFor: input.id }, share),
        input,
        output,
      ),
    );
    return { input, output };
  });
  place.listen((u, source) => {
    rows.forEach(({ input, output }, k) => {
      const at = space.along(u, k);
      if (source !== input) input.value = at;
      output.textContent = fixed(at, 2);
    });
  });
}

// From the code of one test image to that of another, and on.
class Walk {
  constructor(explorer, place, random) {
    Object.assign(this, { explorer, place, random, isOn: false, turn: 0 });
    this.button = document.getElementById("walk");
    this.text = document.getElementById("walking");
    this.button.addEventListener("click", () =>
      this.isOn ? this.stop() : this.start(),
    );
    place.listen((u, source) => {
      if (source !== this && this.isOn) this.stop();
    });
  }

  start() {
    this.isOn = true;
    this.button.textContent = "Stop";
    this.from = this.choose();
    this.next();
  }

  stop() {
    this.isOn = false;
    this.button.textContent = "Walk between test images";
    this.text.textContent = "";
  }

  choose() {
    return this.random.integer(this.explorer.examples.length);
  }

  next() {
    const { examples } = this.explorer;
    const turn = (this.turn += 1);
    const [from, to] = [this.from, this.choose()];
    const [start, end] = [from, to].map((i) => this.explorer.codeOf(examples[i].x));
    const names = [from, to].map((i) => examples[i].name);
    this.text.textContent = `from ${names[0]} to ${names[1]}`;
    this.from = to;
    // Without motion, in eight steps.
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const began = performance.now();
    const frame = (now) => {
      if (!this.isOn || turn !== this.turn) return;
      let share = clamp((now - began) / 3000, 0, 1);
      if (isCalm) share = Math.floor(share * 8) / 8;
      const eased = share * share * (3 - 2 * share);
      this.place.move(
        start.map((score, j) => score + eased * (end[j] - score)),
        this,
      );
      if (share < 1) requestAnimationFrame(frame);
      else this.next();
    };
    requestAnimationFrame(frame);
  }
}
