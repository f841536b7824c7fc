// Pictures on a canvas: a pixel of x is a pixel of the canvas, enlarged by the style.

const INK = [255, 255, 255];
const FILLED_INK = [120, 190, 255];
const HIDDEN = [
  [96, 104, 114],
  [120, 128, 138],
];

// Grey levels, in the ink of what is seen or, where `seen` says so, of what was filled
// in; hidden pixels without a value (`values` null there) are a pattern.
function paint(canvas, { height, width }, values, { seen = null, veil = false } = {}) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < values.length; i += 1) {
    const isHidden = seen !== null && !seen[i];
    const ink = isHidden ? FILLED_INK : INK;
    const pattern = HIDDEN[(Math.floor(i / width) + i) % 2];
    const level = clamp(values[i], 0, 1);
    for (let c = 0; c < 3; c += 1) {
      image.data[4 * i + c] = isHidden && veil ? pattern[c] : level * ink[c];
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// A new element, with properties and children.
function element(tag, properties = {}, ...children) {
  const { className, ...rest } = properties;
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(rest)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const minus = (text) => text.replace("-", "−");
const fixed = (value, digits) => minus(value.toFixed(digits));

// The interval of each dimension of q, in units of the prior: mean, and two deviations
// on either side. The band is the prior's own.
function drawIntervals(canvas, q, { loc, scale }) {
  const { mean, sd } = q;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
  canvas.width = width;
  canvas.height = height;
  const colours = getComputedStyle(canvas);
  const context = canvas.getContext("2d");
  const y = (z) => height * (0.5 - clamp((z - loc) / scale / 8, -0.5, 0.5));
  context.fillStyle = colours.getPropertyValue("--band");
  context.fillRect(
    0,
    y(loc + 2 * scale),
    width,
    y(loc - 2 * scale) - y(loc + 2 * scale),
  );
  context.fillStyle = colours.getPropertyValue("--line");
  context.fillRect(0, y(loc), width, ratio);
  const step = width / mean.length;
  const thick = Math.min(0.6 * step, 14 * ratio);
  context.fillStyle = colours.getPropertyValue("--accent");
  mean.forEach((value, j) => {
    const top = y(value + 2 * sd[j]);
    const size = Math.max(y(value - 2 * sd[j]) - top, 2 * ratio);
    context.fillRect((j + 0.5) * step - thick / 2, top, thick, size);
  });
}

// Runs a generator without blocking the page: a few milliseconds at a time. What it
// yields, but `null`, goes to `show`. Returns a function that stops it.
function runSlowly(generator, show, milliseconds = 12) {
  let isStopped = false;
  const go = () => {
    const end = performance.now() + milliseconds;
    while (!isStopped && performance.now() < end) {
      const { value, done } = generator.next();
      if (done) return;
      if (value) show(value);
    }
    if (!isStopped) setTimeout(go);
  };
  go();
  return () => {
    isStopped = true;
  };
}
