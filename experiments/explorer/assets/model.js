// The model: p(z), p(x|z), q(z|x), and the bound.

class Bernoulli {
  constructor(logits) {
    this.logits = logits;
  }

  get mean() {
    return this.logits.map(sigmoid);
  }

  // log p(x), of the pixels that are seen alone if there is a mask.
  logProb(x, seen = null) {
    let sum = 0;
    for (let i = 0; i < x.length; i += 1) {
      if (seen && !seen[i]) continue;
      sum += x[i] * this.logits[i] - softplus(this.logits[i]);
    }
    return sum;
  }

  // x with a draw in place of what is not seen.
  restored(random, x, seen) {
    const draw = (logit) => (random.uniform() < sigmoid(logit) ? 1 : 0);
    return x.map((value, i) => (seen[i] ? value : draw(this.logits[i])));
  }
}

class Gaussian {
  constructor(mean, logScale) {
    this.mean = mean;
    this.logScale = logScale;
  }

  logProb(x, seen = null) {
    let sum = 0;
    for (let i = 0; i < x.length; i += 1) {
      if (seen && !seen[i]) continue;
      const e = (x[i] - this.mean[i]) * Math.exp(-this.logScale[i]);
      sum -= 0.5 * e ** 2 + this.logScale[i] + 0.5 * Math.log(2 * Math.PI);
    }
    return sum;
  }

  restored(random, x, seen) {
    const draw = (i) => this.mean[i] + Math.exp(this.logScale[i]) * random.normal();
    return x.map((value, i) => (seen[i] ? value : draw(i)));
  }
}

// q(z|x), or the prior: independent dimensions of one family.
class Independent {
  constructor(name, parameters) {
    this.family = FAMILIES[name];
    this.parameters = parameters;
  }

  get mean() {
    return Float64Array.from(this.parameters, (own) => this.family.mean(...own));
  }

  get sd() {
    return Float64Array.from(this.parameters, (own) => this.family.sd(...own));
  }

  sample(random) {
    const draw = (own) => this.family.sample(random, ...own);
    return Float64Array.from(this.parameters, draw);
  }

  logProb(z) {
    const density = (sum, own, j) => sum + this.family.logDensity(z[j], ...own);
    return this.parameters.reduce(density, 0);
  }
}

// KL(q, N(0, I)), of a Gaussian q.
function normalKl({ mean, sd }) {
  const term = (sum, loc, j) => sum + loc ** 2 + sd[j] ** 2 - 1 - 2 * Math.log(sd[j]);
  return 0.5 * mean.reduce(term, 0);
}

function meanAndError(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, error: Math.sqrt(squares / (values.length - 1) / values.length) };
}

class Model {
  constructor(contents) {
    const { arrays, networks, activation, family, latentDim } = contents;
    this.family = family;
    this.isGaussian = contents.likelihood === "gaussian";
    this.minLogScale = contents.minLogScale ?? -Infinity;
    this.decoder = new Network(arrays, "decoder", networks.decoder, activation);
    this.encoder =
      networks.encoder && new Network(arrays, "encoder", networks.encoder, activation);
    const name = PRIORS[family.name] ?? family.name;
    const own = FAMILIES[name].of([0, 0, 0], family.shape);
    this.prior = new Independent(name, Array(latentDim).fill(own));
  }

  // p(x|z): the decoder gets z less the prior's mean, in units of its deviation.
  decode(z) {
    const { loc, scale } = this.family;
    const input = Float64Array.from(z, (value) => (value - loc) / scale);
    const [first, second] = this.decoder.apply(input);
    if (!this.isGaussian) return new Bernoulli(first);
    const logScale = second.map((log) => Math.max(log / 2, this.minLogScale));
    return new Gaussian(first.map(sigmoid), logScale);
  }

  // q(z|x).
  encode(x) {
    const heads = this.encoder.apply(x);
    const { of } = FAMILIES[this.family.name];
    const own = (_, j) =>
      of(
        heads.map((head) => head[j]),
        this.family.shape,
      );
    return new Independent(this.family.name, Array.from(heads[0], own));
  }

  // The bound of one x, and its parts, with their standard errors over draws.
  bound(x, q, random, count) {
    const draws = Array.from({ length: count }, () => {
      const z = q.sample(random);
      return [this.decode(z).logProb(x), q.logProb(z) - this.prior.logProb(z)];
    });
    const reconstruction = meanAndError(draws.map(([log]) => log));
    if (this.family.name === "normal") {
      const kl = { mean: normalKl(q), error: 0 };
      const value = {
        mean: reconstruction.mean - kl.mean,
        error: reconstruction.error,
      };
      return { value, reconstruction, kl };
    }
    const kl = meanAndError(draws.map(([, log]) => log));
    return { value: meanAndError(draws.map(([a, b]) => a - b)), reconstruction, kl };
  }
}
