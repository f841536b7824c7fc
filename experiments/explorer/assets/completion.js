// Draws of p(z|what is seen of x), and so of what is hidden.
//
// A quarter of the steps are pseudo-Gibbs (z ~ q(z|x), x ~ p(x|z, seen)), which moves
// far and is biased. The rest are elliptical slice sampling (Murray, Adams and MacKay,
// arXiv 1001.0175) in normal scores: p(z|seen) is invariant, no step is refused, and
// there is nothing to tune. Metropolis-within-Gibbs has the same limit, but with 40
// latents it refuses nine proposals of ten.

function gibbsStep(model, space, random, chain, seen) {
  const z = model.encode(chain.x).sample(random);
  chain.u = space.toU(z);
  chain.likelihood = model.decode(space.toZ(chain.u));
  chain.x = chain.likelihood.restored(random, chain.x, seen);
}

function sliceStep(model, space, random, chain, x, seen) {
  const { u } = chain;
  const other = space.draw(random);
  const height = chain.likelihood.logProb(x, seen) + Math.log(random.uniform());
  let angle = 2 * Math.PI * random.uniform();
  let [low, high] = [angle - 2 * Math.PI, angle];
  // The bracket shrinks to the angle 0, which is u itself: it ends.
  while (high - low > 1e-12) {
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const next = u.map((score, j) => score * cos + other[j] * sin);
    const likelihood = model.decode(space.toZ(next));
    if (likelihood.logProb(x, seen) > height) {
      Object.assign(chain, { u: next, likelihood });
      return;
    }
    if (angle < 0) low = angle;
    else high = angle;
    angle = low + (high - low) * random.uniform();
  }
}

// Yields after each move of a chain `null`, and after each step of all what is known:
// `{step, steps, mean, chains}`. The mean is E[x|seen] over the second half of the
// steps; before, it is that of the chains as they are.
function* complete(model, space, average, x, seen, { chains: count, steps, seed }) {
  const random = new Random(seed);
  const guess = (i) => {
    if (model.isGaussian) return average[i];
    return random.uniform() < average[i] ? 1 : 0;
  };
  const filled = () => Float64Array.from(x, (value, i) => (seen[i] ? value : guess(i)));
  const chains = Array.from({ length: count }, () => ({ x: filled() }));
  const sum = new Float64Array(x.length);
  let counted = 0;
  for (let step = 1; step <= steps; step += 1) {
    if (step <= steps / 2 + 1) {
      sum.fill(0);
      counted = 0;
    }
    for (const chain of chains) {
      if (step === 1 || 4 * step <= steps) gibbsStep(model, space, random, chain, seen);
      else sliceStep(model, space, random, chain, x, seen);
      yield null;
    }
    const means = chains.map((chain) => chain.likelihood.mean);
    for (const mean of means) mean.forEach((value, i) => (sum[i] += value));
    counted += count;
    const fill = (values) => values.map((value, i) => (seen[i] ? x[i] : value));
    yield {
      step,
      steps,
      mean: fill(sum.map((value) => value / counted)),
      chains: chains.map(({ u }, c) => ({ u, picture: fill(means[c]) })),
    };
  }
}
