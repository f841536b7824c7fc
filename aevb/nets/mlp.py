"""The MLP encoders and decoders of Appendix C, and a `Model` of Linen modules."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aevb.distributions import Bernoulli, DiagNormal
from aevb.nets.precision import float32_dot_general
from aevb.nets.weights import apply_weights
from aevb.types import Model, Posterior, PyTree

__all__ = [
    "BernoulliMLP",
    "FamilyMLP",
    "GaussianMLP",
    "linen_model",
]

Activation = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., Any]


class _MLP(nn.Module):
    """What the MLPs of Appendix C share: hidden layers and how a layer is made.

    Attributes:
      features: the number of outputs: J for an encoder, D for a decoder.
      hidden_dims: units of each hidden layer; the paper has one layer.
      activation: of the hidden layers; tanh in the paper.
      kernel_init: of the weight matrices; the author's code draws sd-0.01 normals.
      bias_init: of the biases.
      dot_general: the matrix product, which says its precision on every platform:
        `float32_dot_general`, `tensorfloat32_dot_general` or `bfloat16_dot_general`.
    """

    features: int
    hidden_dims: Sequence[int] = (500,)
    activation: Activation = jnp.tanh
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros
    dot_general: Callable[..., jax.Array] = float32_dot_general

    def dense(
        self,
        features: int,
        name: str,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> nn.Dense:
        return nn.Dense(
            features,
            kernel_init=kernel_init or self.kernel_init,
            bias_init=bias_init or self.bias_init,
            dot_general=self.dot_general,
            name=name,
        )

    def hidden(self, h: jax.Array) -> jax.Array:
        if h.ndim != 1:
            # A dense layer would map the last axis, and not fail.
            raise ValueError(
                f"{type(self).__name__} maps one datapoint, got shape {h.shape}, "
                "expected [D]: wrap it in jax.vmap, or flatten the image"
            )
        for layer, width in enumerate(self.hidden_dims):
            h = self.activation(self.dense(width, f"hidden_{layer}")(h))
        return h


class BernoulliMLP(_MLP):
    """Appendix C.1: log p(x|z) = Bernoulli(x; logits = W₂ tanh(W₁ z + b₁) + b₂).

    Attributes:
      output_bias_init: of b₂; None is `bias_init`. The logit of the mean pixel starts
        training from the best constant image.
    """

    output_bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, z: jax.Array) -> Bernoulli:
        """Maps one z `[J]` to the distribution of one x `[D]`."""
        logits = self.dense(self.features, "logits", bias_init=self.output_bias_init)
        return Bernoulli(logits(self.hidden(z)))


class GaussianMLP(_MLP):
    """Appendix C.2: h = tanh(W₃ x + b₃), μ = W₄ h + b₄, log σ² = W₅ h + b₅.

    It is the encoder, and the decoder of real-valued data.

    Attributes:
      mean_activation: applied to μ; the paper's Frey Face decoder has a sigmoid.
      log_variance_init: of W₅; zeros (with b₅ = 0) starts from unit variances. The
        author's code starts every encoder so. It starts the log-variance layer of a
        Gaussian decoder, which is Frey Face's (`type_px = sigmoidgaussian`), like its
        other matrices: W₅ ~ N(0, 0.01²), b₅ = 0 and the mean's bias b₄ = 0
        (`init_w` of `DLVM` and of `VAE_Z_X`, `dpkingma/anglepy` 4938fea). That is
        `log_variance_init=nn.initializers.normal(0.01)`. The paper's own runs had no
        published revision: that they used this start is likely, not certain.
      min_log_scale: the least log standard deviation; what is below has that one, and
        no gradient. As a decoder's variance goes to 0 at a datapoint its likelihood has
        no bound: the width of a pixel's rounding is a natural floor. None is no floor.
    """

    mean_activation: Activation | None = None
    log_variance_init: Initializer = nn.initializers.zeros
    min_log_scale: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> DiagNormal:
        """Maps one x `[D]` to a diagonal Gaussian over `[J]` (or the reverse)."""
        h = self.hidden(x)
        loc = self.dense(self.features, "mean")(h)
        if self.mean_activation is not None:
            loc = self.mean_activation(loc)
        log_variance = self.dense(
            self.features,
            "log_variance",
            kernel_init=self.log_variance_init,
            bias_init=nn.initializers.zeros,
        )(h)
        log_scale = 0.5 * log_variance
        if self.min_log_scale is not None:
            log_scale = jnp.maximum(log_scale, self.min_log_scale)
        return DiagNormal(loc, log_scale)


class FamilyMLP(_MLP):
    """An encoder of any family: q(z|x) = family(r_1, …, r_P), r_i = W_i h + b_i.

    Attributes:
      family: `family(r_1 [J], …, r_P [J]) -> q(z|x)`: from real numbers to a
        distribution, so what is positive goes through `jnp.exp` there.
      num_parameters: P.
    """

    family: Callable[..., Posterior] = DiagNormal
    num_parameters: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> Posterior:
        """Maps one x `[D]` to a distribution over z `[J]`."""
        h = self.hidden(x)
        # As in `GaussianMLP`: locations start at random, the rest at what 0 stands for.
        inits = [None] + [nn.initializers.zeros] * (self.num_parameters - 1)
        outputs = [
            self.dense(
                self.features, f"parameter_{i}", kernel_init=init, bias_init=init
            )
            for i, init in enumerate(inits)
        ]
        return self.family(*(layer(h) for layer in outputs))


def linen_model(
    encoder: nn.Module,
    decoder: nn.Module,
    prior: nn.Module | Posterior | None = None,
) -> Model:
    """Makes a `Model` of Linen modules that map one datapoint to a distribution.

    Args:
      encoder: `encoder(x) -> q(z|x)`.
      decoder: `decoder(z) -> p(x|z)`.
      prior: p(z): a distribution, a module with `prior() -> p(z)` whose parameters are
        learned with the others, or None for the standard normal.

    Returns:
      `Model`, whose params are `{"encoder": ..., "decoder": ...}`, and `"prior"` where
      the prior is a module. The weights of a network may be `nets.LocalWeights`.

    >>> model = linen_model(GaussianMLP(2, (8,)), BernoulliMLP(4, (8,)))
    >>> params = model.init(jax.random.key(0), jnp.zeros(4))
    >>> model.decode(params, model.encode(params, jnp.zeros(4)).mean).logits.shape
    (4,)
    """

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        encoder_key, decoder_key, sample_key = jax.random.split(key, 3)
        x = jnp.asarray(x)
        q, encoder_params = encoder.init_with_output(encoder_key, x)
        z = q.sample(sample_key)
        decoder_params = decoder.init(decoder_key, z)
        params = {
            "encoder": encoder_params["params"],
            "decoder": decoder_params["params"],
        }
        if isinstance(prior, nn.Module):
            # A key of its own: with and without, the networks start the same. The
            # three keys of `split` are those folded with 0, 1 and 2.
            prior_params = prior.init(jax.random.fold_in(key, 3))
            params["prior"] = prior_params.get("params", {})
        return params

    def encode(params: PyTree, x: jax.Array) -> Any:
        return apply_weights(encoder, params["encoder"], x)

    def decode(params: PyTree, z: jax.Array) -> Any:
        return apply_weights(decoder, params["decoder"], z)

    def prior_of(params: PyTree) -> Any:
        if isinstance(prior, nn.Module):
            return prior.apply({"params": params["prior"]})
        return prior

    return Model(init, encode, decode, prior_of)
