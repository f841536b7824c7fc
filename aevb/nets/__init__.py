"""The networks of Appendix C in flax Linen, and posteriors over their weights.

The one package that imports flax; `import aevb` does not load it:

    from aevb import nets

    model = nets.linen_model(
        encoder=nets.GaussianMLP(latent_dim, hidden_dims=(500,)),
        decoder=nets.BernoulliMLP(data_dim, hidden_dims=(500,)),
    )
    params = model.init(key, x)
    encode, decode = partial(model.encode, params), partial(model.decode, params)
"""

from aevb.nets.mlp import BernoulliMLP, FamilyMLP, GaussianMLP, linen_model
from aevb.nets.precision import (
    bfloat16_dot_general,
    float32_dot_general,
    tensorfloat32_dot_general,
)
from aevb.nets.weights import (
    LocalWeights,
    activation_noise,
    apply_weights,
    local_reparameterization,
)

__all__ = [
    "BernoulliMLP",
    "FamilyMLP",
    "GaussianMLP",
    "LocalWeights",
    "activation_noise",
    "apply_weights",
    "bfloat16_dot_general",
    "float32_dot_general",
    "linen_model",
    "local_reparameterization",
    "tensorfloat32_dot_general",
]
