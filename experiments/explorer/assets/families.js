// The families of q(z|x), number by number; experiments/program/posteriors.py has the
// same. `of` makes the parameters of an encoder's outputs, all of which are 0 in the
// prior; `sd` is another width where a standard deviation is infinite.

// Lanczos: log Gamma(x) of x > 0, to 15 digits.
const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
  -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
  1.5056327351493116e-7,
];

function logGamma(x) {
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const base = x + 6.5;
  const sum = LANCZOS.reduce((total, term, i) => total + term / (x - 1 + i));
  return (
    0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(base) - base + Math.log(sum)
  );
}

const logBeta = (a, b) => logGamma(a) + logGamma(b) - logGamma(a + b);

// Drawn numbers stay inside the support, as those of float32 do.
const positive = (z) => Math.max(z, 2 ** -126);
const between = (z) => Math.min(positive(z), 1 - 2 ** -24);

function ofBounded([logit, log], shape) {
  const total = 2 * shape * Math.exp(log);
  const mean = sigmoid(logit);
  return [total * mean, total * (1 - mean)];
}

// E[z^power] of Kumaraswamy's.
const kumaraswamyMoment = (a, b, power) => b * Math.exp(logBeta(1 + power / a, b));
const weibullMoment = (k, s, power) => s ** power * Math.exp(logGamma(1 + power / k));

const FAMILIES = {
  normal: {
    of: ([loc, logVariance]) => [loc, Math.exp(logVariance / 2)],
    mean: (loc) => loc,
    sd: (loc, scale) => scale,
    sample: (random, loc, scale) => loc + scale * random.normal(),
    logDensity: (z, loc, scale) =>
      -0.5 * ((z - loc) / scale) ** 2 - Math.log(scale) - 0.5 * Math.log(2 * Math.PI),
  },
  laplace: {
    of: ([loc, log]) => [loc, Math.exp(log)],
    mean: (loc) => loc,
    sd: (loc, scale) => Math.SQRT2 * scale,
    sample(random, loc, scale) {
      const e = -Math.log(random.uniform());
      return loc + (random.uniform() < 0.5 ? -scale : scale) * e;
    },
    logDensity: (z, loc, scale) => -Math.abs(z - loc) / scale - Math.log(2 * scale),
  },
  logistic: {
    of: ([loc, log]) => [loc, Math.exp(log)],
    mean: (loc) => loc,
    sd: (loc, scale) => (Math.PI / Math.sqrt(3)) * scale,
    sample(random, loc, scale) {
      const u = random.uniform();
      return loc + scale * (Math.log(u) - Math.log1p(-u));
    },
    logDensity(z, loc, scale) {
      const e = (z - loc) / scale;
      return -e - 2 * softplus(-e) - Math.log(scale);
    },
  },
  student_t: {
    of: ([loc, log, logDf], shape) => [
      1 + (shape - 1) * Math.exp(logDf),
      loc,
      Math.exp(log),
    ],
    mean: (df, loc) => loc,
    sd: (df, loc, scale) => (df > 2 ? scale * Math.sqrt(df / (df - 2)) : scale),
    sample: (random, df, loc, scale) =>
      loc + scale * random.normal() * Math.sqrt(df / (2 * random.gamma(df / 2))),
    logDensity(z, df, loc, scale) {
      const e = (z - loc) / scale;
      const constant = logBeta(0.5, df / 2) + 0.5 * Math.log(df) + Math.log(scale);
      return -0.5 * (df + 1) * Math.log1p(e ** 2 / df) - constant;
    },
  },
  gamma: {
    of([logMean, log], shape) {
      const a = shape * Math.exp(log);
      return [a, a * Math.exp(-logMean)];
    },
    mean: (a, rate) => a / rate,
    sd: (a, rate) => Math.sqrt(a) / rate,
    sample: (random, a, rate) => positive(random.gamma(a) / rate),
    logDensity: (z, a, rate) =>
      a * Math.log(rate) + (a - 1) * Math.log(z) - rate * z - logGamma(a),
  },
  log_normal: {
    of: ([loc, logVariance]) => [loc, Math.exp(logVariance / 2)],
    mean: (loc, scale) => Math.exp(loc + scale ** 2 / 2),
    sd: (loc, scale) =>
      Math.exp(loc + scale ** 2 / 2) * Math.sqrt(Math.expm1(scale ** 2)),
    sample: (random, loc, scale) => Math.exp(loc + scale * random.normal()),
    logDensity: (z, loc, scale) =>
      FAMILIES.normal.logDensity(Math.log(z), loc, scale) - Math.log(z),
  },
  weibull: {
    of: ([logScale, log]) => [Math.exp(log), Math.exp(logScale)],
    mean: (k, s) => weibullMoment(k, s, 1),
    sd: (k, s) => Math.sqrt(weibullMoment(k, s, 2) - weibullMoment(k, s, 1) ** 2),
    sample: (random, k, s) => positive(s * (-Math.log(random.uniform())) ** (1 / k)),
    logDensity: (z, k, s) => Math.log(k / s) + (k - 1) * Math.log(z / s) - (z / s) ** k,
  },
  beta: {
    of: ofBounded,
    mean: (a, b) => a / (a + b),
    sd: (a, b) => Math.sqrt((a * b) / (a + b + 1)) / (a + b),
    sample(random, a, b) {
      const first = positive(random.gamma(a));
      return between(first / (first + random.gamma(b)));
    },
    logDensity: (z, a, b) =>
      (a - 1) * Math.log(z) + (b - 1) * Math.log1p(-z) - logBeta(a, b),
  },
  kumaraswamy: {
    of: ofBounded,
    mean: (a, b) => kumaraswamyMoment(a, b, 1),
    sd: (a, b) =>
      Math.sqrt(kumaraswamyMoment(a, b, 2) - kumaraswamyMoment(a, b, 1) ** 2),
    sample: (random, a, b) =>
      between((-Math.expm1(Math.log(random.uniform()) / b)) ** (1 / a)),
    logDensity: (z, a, b) =>
      Math.log(a * b) + (a - 1) * Math.log(z) + (b - 1) * Math.log1p(-(z ** a)),
  },
};

// Of Weibull's, the prior is a gamma distribution.
const PRIORS = { weibull: "gamma" };
