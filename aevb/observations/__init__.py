"""What is seen of x, as a likelihood: channels from p(x|z) to p(y|z).

Where y is x through a known channel p(y|x), a decoder of y is the decoder of x with the
channel behind it, and everything that works on x and p(x|z) works on y:

    observe = aevb.masked(observed)                  # or any function of yours
    decode_y = lambda z: observe(decode(z))          # p(y|z)
    aevb.sample_posterior(decode_y, key, y, ...)     # p(z|y)
    aevb.annealed_log_likelihood(encode_y, decode_y, key, y, ...)    # log p(y)

A channel of this module is that function, and knows two more distributions:
`given(x)` is p(y|x), and `restore(p(x|z), y)` is p(x|z, y), whose expectation under
p(z|y) is the answer p(x|y) to what x was.

    log p(x|y) = log p(x) + log p(y|x) − log p(y)

Channels are pytrees: a mask or a rate of each datapoint goes through `jax.vmap`.

- `missing`: some dimensions are not seen. `noise`: flipped pixels, Gaussian noise.
  `linear`: linear measurements.

Every name here is one of `aevb` too.
"""

from aevb.observations.channel import Channel
from aevb.observations.linear import Pooled, pooled
from aevb.observations.missing import Masked, masked
from aevb.observations.noise import Flipped, Noisy, flipped, noisy

__all__ = [
    "Channel",
    "Flipped",
    "Masked",
    "Noisy",
    "Pooled",
    "flipped",
    "masked",
    "noisy",
    "pooled",
]
