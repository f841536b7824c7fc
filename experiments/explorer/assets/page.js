// Puts the page together.
//
// `window.explorer` is for tests and for the console: `ready`, a promise; then
// `decode(z)`, the pixels' means; `encode(x)`, the mean and the deviation of q(z|x);
// `bound(x, draws)`; `complete(x, seen, {chains, steps, seed})`, the mean of x and the
// z that its chains end at; `place()`, the z of the page; `contents`, what the file
// holds; `parts`, the scripts' own functions.

const $ = (id) => document.getElementById(id);

function nameOf({ labels, arrays }, i) {
  if (!arrays.image_labels) return `test image ${i + 1}`;
  return `a test image of ${labels[arrays.image_labels[i]]}`;
}

function makeExplorer(contents) {
  const { arrays, height, width, latentDim, isBinary, scale } = contents;
  const model = new Model(contents);
  const space = new Space(contents);
  const size = height * width;
  const examples = Array.from(
    { length: (arrays.images?.length ?? 0) / size },
    (_, i) => {
      const image = arrays.images.subarray(i * size, (i + 1) * size);
      const x = Float64Array.from(image, (value) => (isBinary ? value : value / scale));
      return { x, name: nameOf(contents, i) };
    },
  );
  return {
    ...contents,
    model,
    space,
    examples,
    plane: latentDim === 2 ? planeOfPrior(space) : planeOfAxes(space),
    meanAt: (u) => model.decode(space.toZ(u)).mean,
    codeOf: (x) => space.toU(model.encode(x).mean),
  };
}

function writeWords(explorer) {
  const { summary, notes, config, labels, colours, isBinary, testBound } = explorer;
  $("plane-title").textContent = explorer.plane.title;
  $("map-help").textContent = explorer.plane.help;
  if (!explorer.hasCodes) {
    $("axes-title").textContent = "Axes of z";
    $("middle").textContent = "Mean of the prior";
  }
  $("axes-help").textContent = explorer.hasCodes
    ? "The places are in standard deviations of the test images’ codes along an " +
      "axis, the shares are of their variance; sliders end at three deviations."
    : "The axes are those of z, in standard deviations of the prior.";
  $("summary").textContent = summary.join(" · ");
  $("notes").append(...notes.map((note) => element("p", { className: "note" }, note)));
  labels.forEach((label, i) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colours[i];
    $("legend").append(element("span", {}, swatch, label));
  });
  for (const [name, value] of Object.entries(config).sort()) {
    const cells = [name, JSON.stringify(value)].map((text) => element("td", {}, text));
    $("config").append(element("tr", {}, ...cells));
  }
  if (testBound !== null) $("test-bound").textContent = fixed(testBound, 1);
  for (const part of document.querySelectorAll(".binary")) part.hidden = !isBinary;
}

// Sections that this run has nothing for.
function hideParts({ name, latentDim, networks, hasCodes, isLikelihood }) {
  $("plane").hidden = latentDim < 2;
  $("axes").hidden = latentDim === 2;
  $("image").hidden = !networks.encoder;
  $("centre").hidden = name !== "mnist";
  $("walk").hidden = !networks.encoder;
  // Where p(x|z) is none of x, what is seen says nothing of what is hidden.
  for (const part of document.querySelectorAll(".hiding")) part.hidden = !isLikelihood;
  $("bound-name").textContent = isLikelihood ? "bound on log p(x)" : "the objective";
  $("codes-option").hidden = !hasCodes;
  document.body.dataset.dims = latentDim === 2 ? "two" : "many";
}

function start(contents) {
  const explorer = makeExplorer(contents);
  const { model, space, examples, arrays } = explorer;
  writeWords(explorer);
  hideParts(explorer);
  const place = new Place(space.centre);
  const random = new Random(0);
  showPicture(explorer, place);
  makeSliders(explorer, place);
  const map = space.dim > 1 ? new PlaneMap(explorer, place) : { show() {} };
  $("random").addEventListener("click", () => place.move(space.draw(random), "random"));
  $("middle").addEventListener("click", () => place.move(space.centre, "middle"));
  if (model.encoder) {
    new Walk(explorer, place, random);
    new Editor(explorer, place, map).load(examples[Math.floor(0.35 * examples.length)]);
  } else {
    place.move(space.centre, "start");
  }
  return {
    contents,
    parts: { ACTIVATIONS, FAMILIES, Random, Space, normalCdf, normalQuantile },
    place: () => Array.from(space.toZ(place.u)),
    decode: (z) => Array.from(model.decode(z).mean),
    encode(x) {
      const { mean, sd } = model.encode(x);
      return { mean: Array.from(mean), sd: Array.from(sd) };
    },
    bound: (x, draws) => model.bound(x, model.encode(x), new Random(0), draws),
    complete(x, seen, options) {
      let last = null;
      for (const found of complete(model, space, arrays.average, x, seen, options)) {
        last = found ?? last;
      }
      const zs = last.chains.map(({ u }) => Array.from(space.toZ(u)));
      return { mean: Array.from(last.mean), zs };
    },
  };
}

function fail(error) {
  $("error").hidden = false;
  $("error").textContent = error.message;
  throw error;
}

window.explorer = {};
window.explorer.ready = readContents()
  .then((contents) => Object.assign(window.explorer, start(contents)))
  .then(() => $("page").removeAttribute("aria-busy"))
  .catch(fail);
