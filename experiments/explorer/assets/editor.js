// The image: drawn, or a test image, with parts hidden. What is whole is encoded; what
// is not is completed.

const BOUND_DRAWS = 64;
const CHAINS = 12;
const STEPS = 64;
const SHOWN_CHAINS = 6;
const SEEDS = { pixels: 1, bound: 2, chains: 3 };

// Of pixels, where images are 28 high: what a brush does at a distance from its centre.
const TOOLS = {
  draw: (editor, i, distance) => {
    editor.ink[i] = Math.max(editor.ink[i], clamp(1.7 - distance, 0, 1));
  },
  erase: (editor, i, distance) => {
    editor.ink[i] = Math.min(editor.ink[i], clamp(distance - 1.2, 0, 1));
  },
  hide: (editor, i, distance) => {
    if (distance < 2.2) editor.seen[i] = 0;
  },
  reveal: (editor, i, distance) => {
    if (distance < 2.2) editor.seen[i] = 1;
  },
};
const REACH = 3;

// What is hidden, at a place in the unit square, y downwards.
const PARTS = {
  "the lower half": (x, y) => y > 0.5,
  "the upper half": (x, y) => y < 0.5,
  "the left half": (x) => x < 0.5,
  "the right half": (x) => x > 0.5,
  "the lower right quarter": (x, y) => x > 0.5 && y > 0.5,
};

// As MNIST's images are: the centre of mass in the middle, the larger side 20 of 28.
function centred(ink, height, width) {
  let [mass, row, column] = [0, 0, 0];
  let [top, bottom, left, right] = [height, -1, width, -1];
  ink.forEach((value, i) => {
    const [r, c] = [Math.floor(i / width), i % width];
    mass += value;
    row += value * r;
    column += value * c;
    if (value < 0.5) return;
    [top, bottom] = [Math.min(top, r), Math.max(bottom, r)];
    [left, right] = [Math.min(left, c), Math.max(right, c)];
  });
  if (bottom < 0) return ink;
  const size = Math.max(bottom - top + 1, right - left + 1);
  const scale = size / ((20 / 28) * height);
  const at = (r, c) =>
    r >= 0 && r < height && c >= 0 && c < width ? ink[r * width + c] : 0;
  return ink.map((_, i) => {
    const r = row / mass + scale * (Math.floor(i / width) - (height - 1) / 2);
    const c = column / mass + scale * ((i % width) - (width - 1) / 2);
    const [r0, c0] = [Math.floor(r), Math.floor(c)];
    const [down, across] = [r - r0, c - c0];
    const upper = (1 - across) * at(r0, c0) + across * at(r0, c0 + 1);
    const lower = (1 - across) * at(r0 + 1, c0) + across * at(r0 + 1, c0 + 1);
    return (1 - down) * upper + down * lower;
  });
}

class Editor {
  constructor(explorer, place, map) {
    Object.assign(this, { explorer, place, map });
    const size = explorer.height * explorer.width;
    this.size = size;
    this.ink = new Float64Array(size);
    this.seen = new Uint8Array(size).fill(1);
    // A grey pixel of a drawing is 1 where it is above this: always the same, so that
    // nothing flickers.
    const random = new Random(SEEDS.pixels);
    this.thresholds = Float64Array.from({ length: size }, () => random.uniform());
    this.find = (id) => document.getElementById(id);
    this.canvas = this.find("editor");
    this.listen();
    this.makeExamples();
  }

  // What the model is given.
  get x() {
    if (!this.explorer.isBinary) return this.ink.slice();
    return this.ink.map((value, i) => (value > this.thresholds[i] ? 1 : 0));
  }

  get tool() {
    return document.querySelector("input[name=tool]:checked").value;
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.last = null;
      this.stroke(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) this.stroke(event);
    });
    this.find("clear").addEventListener("click", () => {
      this.load({ x: new Float64Array(this.size), name: "" });
      document.querySelector("input[name=tool][value=draw]").click();
    });
    this.find("centre").addEventListener("click", () => {
      const { height, width } = this.explorer;
      this.ink = centred(this.ink, height, width);
      this.changed();
    });
    const parts = this.find("parts");
    for (const [name, isHidden] of Object.entries(PARTS)) {
      const hide = () => this.hidePart(isHidden);
      parts.append(element("button", { type: "button", onclick: hide }, name));
    }
    const reveal = () => this.hidePart(() => false);
    parts.append(element("button", { type: "button", onclick: reveal }, "nothing"));
  }

  hidePart(isHidden) {
    const { height, width } = this.explorer;
    this.seen = this.seen.map((_, i) => {
      const [row, column] = [Math.floor(i / width), i % width];
      return isHidden((column + 0.5) / width, (row + 0.5) / height) ? 0 : 1;
    });
    this.changed();
  }

  // From where the pointer was to where it is, half a pixel at a time.
  stroke(event) {
    const { height, width } = this.explorer;
    const box = this.canvas.getBoundingClientRect();
    const to = [
      ((event.clientX - box.left) / box.width) * width,
      ((event.clientY - box.top) / box.height) * height,
    ];
    const from = this.last ?? to;
    const steps = Math.max(
      1,
      Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])),
    );
    for (let i = 1; i <= steps; i += 1) {
      this.dab(...[0, 1].map((k) => from[k] + (i / steps) * (to[k] - from[k])));
    }
    this.last = to;
    this.changed();
  }

  dab(x, y) {
    const { height, width } = this.explorer;
    const unit = height / 28;
    const apply = TOOLS[this.tool];
    const reach = REACH * unit;
    for (let row = Math.floor(y - reach); row <= y + reach; row += 1) {
      for (let column = Math.floor(x - reach); column <= x + reach; column += 1) {
        if (row < 0 || row >= height || column < 0 || column >= width) continue;
        const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y) / unit;
        apply(this, row * width + column, distance);
      }
    }
  }

  load({ x }) {
    this.ink = Float64Array.from(x);
    this.seen = new Uint8Array(this.size).fill(1);
    this.changed();
  }

  // One stop of the tab key for all of them; the arrow keys go from one to the next.
  makeExamples() {
    const list = this.find("examples");
    const buttons = this.explorer.examples.map((example, i) => {
      const canvas = element("canvas");
      paint(canvas, this.explorer, example.x);
      const button = element(
        "button",
        {
          type: "button",
          "aria-label": example.name,
          title: example.name,
          tabIndex: i ? -1 : 0,
        },
        canvas,
      );
      button.addEventListener("click", () => this.load(example));
      list.append(button);
      return button;
    });
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };
    list.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      const old = buttons.indexOf(document.activeElement);
      const next = clamp(old + steps[event.key], 0, buttons.length - 1);
      [buttons[old].tabIndex, buttons[next].tabIndex] = [-1, 0];
      buttons[next].focus();
    });
  }

  changed() {
    const { explorer, ink, seen } = this;
    paint(this.canvas, explorer, ink, { seen, veil: true });
    this.stop?.();
    clearTimeout(this.timer);
    const isWhole = seen.every((value) => value);
    const isBlank = isWhole && ink.every((value) => value < 0.5);
    this.find("blank").hidden = !isBlank;
    this.find("encoded").hidden = isBlank || !isWhole;
    this.find("completed").hidden = isWhole;
    if (isBlank) this.map.show({});
    else if (isWhole) this.encode();
    else this.complete();
  }

  encode() {
    const { explorer, x } = this;
    const { model, space } = explorer;
    const q = model.encode(x);
    const u = space.toU(q.mean);
    this.place.move(u, this);
    this.map.show({ q });
    paint(this.find("input"), explorer, x);
    paint(this.find("reconstruction"), explorer, explorer.meanAt(u));
    drawIntervals(this.find("intervals"), q, explorer.family);
    const { mean, sd } = q;
    const told = Array.from(mean, (loc, j) => `${fixed(loc, 2)} ± ${fixed(sd[j], 2)}`);
    this.find("code").textContent = told.length > 4 ? "" : `z: ${told.join(", ")}. `;
    for (const name of ["value", "reconstruction", "kl"]) {
      this.find(`bound-${name}`).textContent = "…";
    }
    this.timer = setTimeout(() => this.showBound(x, q), 150);
  }

  showBound(x, q) {
    const bound = this.explorer.model.bound(x, q, new Random(SEEDS.bound), BOUND_DRAWS);
    for (const [name, { mean, error }] of Object.entries(bound)) {
      const spread = error > 0 ? ` ± ${error.toFixed(1)}` : "";
      this.find(`bound-${name}`).textContent = fixed(mean, 1) + spread;
    }
  }

  complete() {
    const { explorer, x } = this;
    const seen = this.seen.slice();
    const { model, space, arrays } = explorer;
    const options = { chains: CHAINS, steps: STEPS, seed: SEEDS.chains };
    const draws = complete(model, space, arrays.average, x, seen, options);
    this.stop = runSlowly(draws, (found) => this.showCompletion(found, x, seen));
  }

  showCompletion({ step, steps, mean, chains }, x, seen) {
    const { explorer } = this;
    paint(this.find("mean"), explorer, mean, { seen });
    const list = this.find("draws");
    while (list.children.length < SHOWN_CHAINS) {
      const button = element("button", { type: "button" }, element("canvas"));
      const name = `draw ${list.children.length + 1}: go to its z`;
      button.setAttribute("aria-label", name);
      button.title = name;
      list.append(button);
    }
    chains.slice(0, SHOWN_CHAINS).forEach(({ u, picture }, c) => {
      paint(list.children[c].firstChild, explorer, picture, { seen });
      list.children[c].onclick = () => this.place.move(u, this);
    });
    this.map.show({ chains: chains.map(({ u }) => u) });
    this.find("steps").textContent =
      `Step ${step} of ${steps}, ${chains.length} chains`;
    this.showWrong(mean, x, seen);
  }

  // Of what is hidden, if it is binary: the share whose likelier value is the other.
  showWrong(mean, x, seen) {
    if (!this.explorer.isBinary) return;
    let [hidden, wrong] = [0, 0];
    x.forEach((value, i) => {
      if (seen[i]) return;
      hidden += 1;
      wrong += mean[i] > 0.5 !== value > 0.5;
    });
    this.find("wrong").textContent =
      `; of ${fixed((100 * wrong) / hidden, 1)} % of the hidden pixels the likelier ` +
      "value is not the image’s";
  }
}
