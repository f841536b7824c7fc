// The map: a square to drag over, with pictures and codes behind.

const MAP_SIZE = 960;
const MARGIN = 52;
const BLACK = "#000000";
const HERE = "#ffb454";
const CHAIN = "#78beff";

// Pictures of the decoder over the plane through u, on one canvas.
function* tiles(explorer, u) {
  const { plane, height, width } = explorer;
  const { side } = plane;
  const canvas = element("canvas", { width: side * width, height: side * height });
  const context = canvas.getContext("2d");
  const tile = element("canvas");
  for (let row = 0; row < side; row += 1) {
    for (let column = 0; column < side; column += 1) {
      const at = [(column + 0.5) / side, 1 - (row + 0.5) / side];
      paint(tile, explorer, explorer.meanAt(plane.moved(u, at)));
      context.drawImage(tile, column * width, row * height);
      yield null;
    }
  }
  yield canvas;
}

const pixel = ([x, y]) => [x * MAP_SIZE, (1 - y) * MAP_SIZE];

function dot(context, at, radius, colour) {
  const [x, y] = pixel(at);
  context.fillStyle = colour;
  context.beginPath();
  context.arc(clamp(x, 0, MAP_SIZE), clamp(y, 0, MAP_SIZE), radius, 0, 2 * Math.PI);
  context.fill();
}

// Seen on black as on white.
function strokeTwice(context, unit) {
  for (const [colour, width] of [
    [BLACK, 5],
    [HERE, 2.5],
  ]) {
    context.strokeStyle = colour;
    context.lineWidth = width * unit;
    context.stroke();
  }
}

class PlaneMap {
  constructor(explorer, place) {
    Object.assign(this, { explorer, place, chains: [], q: null });
    this.canvas = document.getElementById("map");
    this.canvas.width = MARGIN + MAP_SIZE;
    this.canvas.height = MAP_SIZE + MARGIN;
    this.pictures = null;
    this.isStale = true;
    this.codes = this.drawCodes();
    this.boxes = ["show-pictures", "show-codes"].map((id) =>
      document.getElementById(id),
    );
    for (const box of this.boxes) box.addEventListener("change", () => this.draw());
    this.listen();
    place.listen((u, source) => {
      // Along the map itself nothing behind it changes.
      if (source !== this && explorer.space.dim > 2) this.renew();
      this.draw();
    });
    this.renew();
  }

  listen() {
    const { canvas, explorer } = this;
    const drag = (event) => {
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width / MAP_SIZE;
      this.moveTo([
        (event.clientX - box.left) * scale - MARGIN / MAP_SIZE,
        1 - (event.clientY - box.top) * scale,
      ]);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      drag(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) drag(event);
    });
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
    const keys = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, 1],
      ArrowDown: [0, -1],
    };
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      const step = event.shiftKey ? 0.1 : 0.01;
      const at = explorer.plane.at(this.place.u);
      this.moveTo(at.map((value, i) => value + step * keys[event.key][i]));
    });
  }

  moveTo(point) {
    const { plane } = this.explorer;
    const inside = point.map((value) => clamp(value, plane.limit, 1 - plane.limit));
    this.place.move(plane.moved(this.place.u, inside), this);
  }

  // Pictures of the plane through where the page is: as soon as it stands still.
  renew() {
    this.isStale = true;
    this.stop?.();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const pictures = tiles(this.explorer, this.place.u);
      this.stop = runSlowly(pictures, (canvas) => {
        this.pictures = canvas;
        this.isStale = false;
        this.draw();
      });
    }, 120);
  }

  drawCodes() {
    const { arrays, colours, plane } = this.explorer;
    const layer = element("canvas", { width: MAP_SIZE, height: MAP_SIZE });
    const context = layer.getContext("2d");
    for (let i = 0; 2 * i < arrays.plane.length; i += 1) {
      const at = plane.of([arrays.plane[2 * i], arrays.plane[2 * i + 1]]);
      dot(context, at, 5, colours[arrays.code_labels?.[i] ?? 0]);
    }
    return layer;
  }

  show({ q = null, chains = [] }) {
    Object.assign(this, { q, chains });
    this.draw();
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const [pictures, codes] = this.boxes.map((box) => box.checked);
    document.getElementById("legend").hidden = !codes;
    // A pixel of the screen, in those of the canvas.
    const unit = this.canvas.width / Math.max(this.canvas.clientWidth, 1);
    context.reset();
    this.drawTicks(context, unit);
    // From here on the square is all there is, with its corner at 0.
    context.translate(MARGIN, 0);
    context.beginPath();
    context.rect(0, 0, MAP_SIZE, MAP_SIZE);
    context.clip();
    context.fillStyle = BLACK;
    context.fillRect(0, 0, MAP_SIZE, MAP_SIZE);
    if (pictures && this.pictures) {
      context.globalAlpha = this.isStale ? 0.25 : codes ? 0.4 : 1;
      context.drawImage(this.pictures, 0, 0, MAP_SIZE, MAP_SIZE);
      context.globalAlpha = 1;
    }
    if (codes) context.drawImage(this.codes, 0, 0);
    const { plane } = this.explorer;
    if (this.q) this.drawEllipse(context, unit);
    for (const u of this.chains) {
      dot(context, plane.at(u), 6 * unit, BLACK);
      dot(context, plane.at(u), 4 * unit, CHAIN);
    }
    const [x, y] = pixel(plane.at(this.place.u));
    context.beginPath();
    context.arc(x, y, 8 * unit, 0, 2 * Math.PI);
    strokeTwice(context, unit);
  }

  drawTicks(context, unit) {
    const { ticks } = this.explorer.plane;
    context.fillStyle = getComputedStyle(this.canvas).getPropertyValue("--dim");
    context.font = `${13 * unit}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    const [across, down] = [MAP_SIZE + MARGIN / 2, MARGIN / 2];
    for (const [at, value] of ticks) {
      const text = minus(String(value));
      context.fillText(text, MARGIN + at * MAP_SIZE, across);
      context.fillText(text, down, (1 - at) * MAP_SIZE);
    }
  }

  // Two deviations of q around its mean, where the map is that of z.
  drawEllipse(context, unit) {
    const { plane, space } = this.explorer;
    if (space.dim !== 2) return;
    const { mean, sd } = this.q;
    context.beginPath();
    for (let i = 0; i <= 64; i += 1) {
      const angle = (2 * Math.PI * i) / 64;
      const around = [Math.cos(angle), Math.sin(angle)];
      const z = mean.map((loc, j) => loc + 2 * sd[j] * around[j]);
      context.lineTo(...pixel(plane.at(space.toU(z))));
    }
    strokeTwice(context, unit);
  }
}
