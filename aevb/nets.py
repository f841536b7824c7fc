"""The MLP encoders and decoders of Appendix C, in flax Linen.

The one module that imports flax; `import aevb` does not load it:

    from aevb import nets

    model = nets.linen_model(
        encoder=nets.GaussianMLP(latent_dim, hidden_dims=(500,)),
        decoder=nets.BernoulliMLP(data_dim, hidden_dims=(500,)),
    )
    params = model.init(key, x)
    encode, decode = partial(model.encode, params), partial(model.decode, params)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from aevb.distributions import Bernoulli, DiagNormal
from aevb.types import Model, Posterior, PyTree

__all__ = [
    "BernoulliMLP",
    "GaussianMLP",
    "bfloat16_dot_general",
    "float32_dot_general",
    "linen_model",
    "tensorfloat32_dot_general",
]

Activation = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., Any]


def float32_dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, *_: Any, **__: Any
) -> jax.Array:
    """`lax.dot_general` in float32 on every platform, forward and backward.

    JAX's default precision of a float32 product is bfloat16 on a TPU and TF32 on a
    recent GPU. Here the program says what it wants; on a CPU it is the same program.

    Args:
      lhs: left operand.
      rhs: right operand.
      dimension_numbers: as in `lax.dot_general`; precision arguments are ignored.

    Returns:
      The product.

    >>> dimensions = (((1,), (0,)), ((), ()))
    >>> print(float32_dot_general(jnp.ones((1, 2)), jnp.ones((2, 1)), dimensions))
    [[2.]]
    """
    return lax.dot_general(lhs, rhs, dimension_numbers, precision=lax.Precision.HIGHEST)


def tensorfloat32_dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, *_: Any, **__: Any
) -> jax.Array:
    """`lax.dot_general` with TF32 products on a GPU, three bfloat16 passes on a TPU.

    About half of float32's digits at several times its rate; on a CPU it is float32.

    Args:
      lhs: left operand.
      rhs: right operand.
      dimension_numbers: as in `lax.dot_general`; precision arguments are ignored.

    Returns:
      The product.

    >>> dimensions = (((1,), (0,)), ((), ()))
    >>> print(tensorfloat32_dot_general(jnp.ones((1, 2)), jnp.ones((2, 1)), dimensions))
    [[2.]]
    """
    return lax.dot_general(lhs, rhs, dimension_numbers, precision=lax.Precision.HIGH)


def bfloat16_dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, *_: Any, **__: Any
) -> jax.Array:
    """`lax.dot_general` with bfloat16 inputs and float32 sums, forward and backward.

    Both operands are rounded to bfloat16 (8 significant bits); the products are summed
    and returned in float32. In the backward pass the cotangent is rounded too, so that
    all three matrix products of a layer run at the bfloat16 rate (AMX, TPU), and the
    two gradients, summed in float32, are rounded once as they are stored.

    Args:
      lhs: left operand.
      rhs: right operand.
      dimension_numbers: as in `lax.dot_general`; precision arguments are ignored.

    Returns:
      The product, float32.

    >>> dimensions = (((1,), (0,)), ((), ()))
    >>> print(bfloat16_dot_general(jnp.ones((1, 2)), jnp.ones((2, 1)), dimensions))
    [[2.]]
    """
    return _bfloat16_dot(lhs, rhs, dimension_numbers)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _bfloat16_dot(lhs: jax.Array, rhs: jax.Array, dimensions: Any) -> jax.Array:
    return lax.dot_general(
        lhs.astype(jnp.bfloat16),
        rhs.astype(jnp.bfloat16),
        dimensions,
        preferred_element_type=jnp.float32,
    )


@_bfloat16_dot.defjvp
def _(dimensions: Any, primals: tuple, tangents: tuple) -> tuple:
    # A dot_general is transposed with its output's dtype for the cotangent. A tangent
    # in bfloat16 is what makes the backward products bfloat16 too; a custom_vjp would
    # do it as well, but vmap then sums one outer product a datapoint instead of making
    # one matrix product of the batch.
    lhs, rhs = (operand.astype(jnp.bfloat16) for operand in primals)
    lhs_dot, rhs_dot = (tangent.astype(jnp.bfloat16) for tangent in tangents)
    tangent = lax.dot_general(lhs_dot, rhs, dimensions).astype(jnp.float32)
    tangent += lax.dot_general(lhs, rhs_dot, dimensions).astype(jnp.float32)
    return _bfloat16_dot(*primals, dimensions), tangent


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
      the prior is a module.

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
        return encoder.apply({"params": params["encoder"]}, x)

    def decode(params: PyTree, z: jax.Array) -> Any:
        return decoder.apply({"params": params["decoder"]}, z)

    def prior_of(params: PyTree) -> Any:
        if isinstance(prior, nn.Module):
            return prior.apply({"params": params["prior"]})
        return prior

    return Model(init, encode, decode, prior_of)
