"""The networks of Appendix C, in flax Linen.

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

__all__ = [
    "BernoulliMLP",
    "FamilyMLP",
    "GaussianMLP",
    "bfloat16_dot_general",
    "float32_dot_general",
    "linen_model",
    "tensorfloat32_dot_general",
]
