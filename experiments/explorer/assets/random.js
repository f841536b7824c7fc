// Random numbers from a seed, so that the page draws the same at each load.

class Random {
  // sfc32, of Chris Doty-Humphrey's PractRand.
  constructor(seed) {
    this.state = [0x9e3779b9, 0x243f6a88, 0xb7e15162, seed >>> 0];
    for (let i = 0; i < 15; i += 1) this.bits();
  }

  bits() {
    const [a, b, c, count] = this.state;
    const sum = (a + b + count) | 0;
    const rotated = (c << 21) | (c >>> 11);
    this.state = [
      b ^ (b >>> 9),
      (c + (c << 3)) | 0,
      (rotated + sum) | 0,
      (count + 1) | 0,
    ];
    return sum >>> 0;
  }

  // In (0, 1), with neither end.
  uniform() {
    return (this.bits() + 0.5) / 2 ** 32;
  }

  integer(count) {
    return Math.floor(this.uniform() * count);
  }

  // Box and Muller.
  normal() {
    const radius = Math.sqrt(-2 * Math.log(this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  // Marsaglia and Tsang (2000); a shape below 1 is that of shape + 1, made smaller.
  gamma(shape) {
    if (shape < 1) return this.gamma(shape + 1) * this.uniform() ** (1 / shape);
    const d = shape - 1 / 3;
    for (;;) {
      const normal = this.normal();
      const v = (1 + normal / Math.sqrt(9 * d)) ** 3;
      if (v <= 0) continue;
      const bound = normal ** 2 / 2 + d - d * v + d * Math.log(v);
      if (Math.log(this.uniform()) < bound) return d * v;
    }
  }
}
