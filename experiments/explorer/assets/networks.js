// Networks of dense layers. The activations are flax's: gelu is the approximate one.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

const ACTIVATIONS = {
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
  gelu: (x) =>
    0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  leaky_relu: (x) => (x >= 0 ? x : 0.01 * x),
  relu: (x) => Math.max(x, 0),
  sigmoid,
  silu: (x) => x * sigmoid(x),
  softplus,
  tanh: Math.tanh,
};

class Dense {
  constructor(arrays, name) {
    this.kernel = arrays[`${name}/kernel`];
    this.bias = arrays[`${name}/bias`];
  }

  // Four sums at a time: a processor adds them side by side.
  apply(input) {
    const { kernel, bias } = this;
    const size = input.length;
    const whole = size - (size % 4);
    const output = new Float64Array(bias.length);
    for (let unit = 0, at = 0; unit < bias.length; unit += 1, at += size) {
      let first = bias[unit];
      let second = 0;
      let third = 0;
      let fourth = 0;
      for (let i = 0; i < whole; i += 4) {
        first += kernel[at + i] * input[i];
        second += kernel[at + i + 1] * input[i + 1];
        third += kernel[at + i + 2] * input[i + 2];
        fourth += kernel[at + i + 3] * input[i + 3];
      }
      for (let i = whole; i < size; i += 1) first += kernel[at + i] * input[i];
      output[unit] = first + second + third + fourth;
    }
    return output;
  }
}

class Network {
  constructor(arrays, name, { hidden, heads }, activation) {
    const layer = (own) => new Dense(arrays, `${name}/${own}`);
    this.hidden = hidden.map(layer);
    this.heads = heads.map(layer);
    this.activation = ACTIVATIONS[activation];
  }

  // What each head puts out.
  apply(input) {
    let h = input;
    for (const layer of this.hidden) h = layer.apply(h).map(this.activation);
    return this.heads.map((head) => head.apply(h));
  }
}
