// Where the page is: in normal scores u, which are N(0, I) in the prior. z is their
// image in the family of the prior, and u itself where that is the standard normal.

const LARGEST_SCORE = 5;

// P(U < u): to 1e-7 (Press et al., Numerical Recipes, erfcc).
const ERFC = [
  -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398,
  1.48851587, -0.82215223, 0.17087277,
];

function normalCdf(u) {
  const x = Math.abs(u) / Math.SQRT2;
  const t = 1 / (1 + x / 2);
  const sum = ERFC.reduceRight((total, term) => total * t + term, 0);
  const tail = 0.5 * t * Math.exp(-x * x + sum);
  return u < 0 ? tail : 1 - tail;
}

// Its inverse, by halving: the plane needs no more than a pixel of it.
function normalQuantile(p) {
  let [low, high] = [-LARGEST_SCORE, LARGEST_SCORE];
  for (let i = 0; i < 40; i += 1) {
    const middle = (low + high) / 2;
    if (normalCdf(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

class Space {
  constructor({ latentDim, arrays }) {
    this.dim = latentDim;
    this.quantiles = arrays.quantiles;
    this.centre = Float64Array.from(arrays.centre);
    this.spread = arrays.spread;
    this.shares = arrays.shares;
    this.axes = Array.from(this.spread, (_, k) =>
      arrays.axes.subarray(k * latentDim, (k + 1) * latentDim),
    );
  }

  toZ(u) {
    const { quantiles } = this;
    if (!quantiles) return u;
    const last = quantiles.length - 1;
    return u.map((score) => {
      const place = ((score / LARGEST_SCORE + 1) / 2) * last;
      const i = clamp(Math.floor(place), 0, last - 1);
      const share = clamp(place - i, 0, 1);
      return quantiles[i] + share * (quantiles[i + 1] - quantiles[i]);
    });
  }

  toU(z) {
    const { quantiles } = this;
    if (!quantiles) return z;
    const last = quantiles.length - 1;
    return z.map((value) => {
      let [low, high] = [0, last];
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (quantiles[middle] <= value) low = middle;
        else high = middle;
      }
      const step = quantiles[high] - quantiles[low];
      const share = step > 0 ? clamp((value - quantiles[low]) / step, 0, 1) : 0;
      return LARGEST_SCORE * ((2 * (low + share)) / last - 1);
    });
  }

  draw(random) {
    return Float64Array.from({ length: this.dim }, () => random.normal());
  }

  // The place on an axis, in the codes' standard deviations.
  along(u, k) {
    const axis = this.axes[k];
    const term = (sum, score, j) => sum + axis[j] * (score - this.centre[j]);
    return u.reduce(term, 0) / this.spread[k];
  }

  // u, moved along an axis to a place on it.
  moved(u, k, place) {
    const step = (place - this.along(u, k)) * this.spread[k];
    return u.map((score, j) => score + step * this.axes[k][j]);
  }
}

// The map is a square, [0, 1] by [0, 1], with y upwards. Of two dimensions it is the
// prior's: each part has as much of it as of the square (the paper's Fig. 4).
const planeOfPrior = (space) => ({
  title: "The plane of z₁ and z₂",
  help:
    "Drag over it, or use the arrow keys (with Shift, larger steps). Equal parts of " +
    "it have equal probability in the prior, as in the paper’s Fig. 4; the numbers " +
    (space.quantiles ? "are normal scores of z." : "are z."),
  side: 20,
  limit: 0.001,
  ticks: [-2, -1, 0, 1, 2].map((score) => [normalCdf(score), score]),
  of: (pair) => pair.map(normalCdf),
  at: (u) => Array.from(u, normalCdf),
  moved: (u, point) => Float64Array.from(point, normalQuantile),
});

// Of more, it is that through u along the first two axes, to three deviations.
const AXIS_LIMIT = 3;
const planeOfAxes = (space) => ({
  title: "The plane of axes 1 and 2",
  help:
    "The plane through z along the first two axes. Drag over it, or use the arrow " +
    "keys (with Shift, larger steps).",
  side: 11,
  limit: 0,
  of: (pair) => pair.map((place) => 0.5 + place / (2 * AXIS_LIMIT)),
  at: (u) => [0, 1].map((k) => 0.5 + space.along(u, k) / (2 * AXIS_LIMIT)),
  moved: (u, point) =>
    point.reduce((v, x, k) => space.moved(v, k, (2 * x - 1) * AXIS_LIMIT), u),
  ticks: [-2, -1, 0, 1, 2].map((place) => [0.5 + place / (2 * AXIS_LIMIT), place]),
});
