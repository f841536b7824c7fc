"""The variance of the two gradient estimators of section 2.2, family by family.

    python -m benchmarks.gradient_variance             # some minutes on two cores

For each family and each of its parameters: the variance of the pathwise estimator of
∂/∂θ E f(z), which is ∂f(z)/∂θ of a reparameterised draw, and of the score-function
estimator, f(z) ∂ log p(z)/∂θ, with as many draws. One and the same f for all:
f(z) = tanh((z − m) / w), m the median of z and w its interquartile range, both fixed;
it is bounded, so that heavy tails have a variance, and its mean is near 0, so that no
baseline helps the score much. Prints a Markdown table, with a warning where the
two means disagree by more than 5 standard errors.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from aevb import reparameterizations as rep

INVERSE, SCALE = "inverse CDF", "location-scale"
COMPOSITION, NUMERICAL = "composition", "numerical inverse CDF"
GAMMAS = "gamma (implicit gradient)"

# Name, family of its parameters, their names and values, strategy, noise a dimension.
Row = tuple[str, Callable[..., Any], dict[str, float], str, str]
ROWS: list[Row] = [
    ("Exponential", rep.Exponential, {"rate": 1.5}, INVERSE, "uniform"),
    ("Cauchy", rep.Cauchy, {"loc": 0.5, "scale": 1.5}, INVERSE, "uniform"),
    ("Rayleigh", rep.Rayleigh, {"scale": 1.5}, INVERSE, "uniform"),
    (
        "Pareto",
        lambda concentration: rep.Pareto(concentration, jnp.float32(1.5)),
        {"concentration": 2.5},
        INVERSE,
        "uniform",
    ),
    (
        "Weibull",
        rep.Weibull,
        {"concentration": 1.5, "scale": 1.5},
        INVERSE,
        "uniform",
    ),
    ("Gompertz", rep.Gompertz, {"concentration": 1.5, "rate": 1.5}, INVERSE, "uniform"),
    ("Gumbel", rep.Gumbel, {"loc": 0.5, "scale": 1.5}, INVERSE, "uniform"),
    (
        "Kumaraswamy",
        rep.Kumaraswamy,
        {"concentration1": 2.0, "concentration0": 3.0},
        INVERSE,
        "uniform",
    ),
    ("DiagNormal", aevb.DiagNormal, {"loc": 0.5, "log_scale": 0.4}, SCALE, "normal"),
    ("Laplace", rep.Laplace, {"loc": 0.5, "scale": 1.5}, SCALE, "uniform"),
    ("Logistic", rep.Logistic, {"loc": 0.5, "scale": 1.5}, SCALE, "uniform"),
    (
        "StudentT",
        rep.StudentT,
        {"df": 4.0, "loc": 0.5, "scale": 1.5},
        SCALE,
        "normal, " + GAMMAS,
    ),
    (
        "LogNormal",
        rep.LogNormal,
        {"loc": 0.5, "log_scale": -0.3},
        COMPOSITION,
        "normal",
    ),
    ("Gamma", rep.Gamma, {"concentration": 2.5, "rate": 1.5}, COMPOSITION, GAMMAS),
    ("ChiSquared", rep.ChiSquared, {"df": 3.0}, COMPOSITION, GAMMAS),
    (
        "Erlang",
        lambda rate: rep.Erlang(rate, 3),
        {"rate": 1.5},
        f"{INVERSE}, summed",
        "3 uniforms",
    ),
    (
        "Beta",
        rep.Beta,
        {"concentration1": 2.0, "concentration0": 3.0},
        COMPOSITION,
        "2 × " + GAMMAS,
    ),
    (
        "FisherSnedecor",
        rep.FisherSnedecor,
        {"df1": 4.0, "df0": 6.0},
        COMPOSITION,
        "2 × " + GAMMAS,
    ),
    (
        "TruncatedNormal",
        lambda loc, scale: rep.TruncatedNormal(loc, scale, -1.0, 2.0),
        {"loc": 0.5, "scale": 1.5},
        NUMERICAL,
        "uniform",
    ),
]
# Parameters that move an end of the support have no score: its mean is another number.
MOVING: list[Row] = [
    (
        "Pareto",
        lambda scale: rep.Pareto(jnp.float32(2.5), scale),
        {"scale": 1.5},
        INVERSE,
        "uniform",
    ),
    ("LogUniform", rep.LogUniform, {"low": 0.5, "high": 3.0}, INVERSE, "uniform"),
    ("Uniform", rep.Uniform, {"low": -0.5, "high": 1.5}, SCALE, "uniform"),
    (
        "Triangular",
        rep.Triangular,
        {"low": -0.5, "mode": 0.2, "high": 1.5},
        SCALE,
        "uniform",
    ),
    (
        "TruncatedNormal",
        lambda low, high: rep.TruncatedNormal(
            jnp.float32(0.5), jnp.float32(1.5), low, high
        ),
        {"low": -1.0, "high": 2.0},
        NUMERICAL,
        "uniform",
    ),
]


def vectors() -> list[tuple[Row, Callable[..., Any]]]:
    """`Dirichlet` and `Elliptical`, whose f is of the first coordinate."""
    dirichlet: Row = (
        "Dirichlet",
        lambda a: rep.Dirichlet(jnp.stack([a, jnp.float32(3.0), jnp.float32(1.0)])),
        {"concentration[0]": 2.0},
        COMPOSITION,
        "K × " + GAMMAS,
    )
    elliptical: Row = (
        "Elliptical",
        lambda loc, scale, rate: rep.Elliptical(
            jnp.stack([loc, jnp.float32(0.0)]),
            scale * jnp.eye(2),
            rep.Gamma(jnp.float32(2.5), rate),
        ),
        {"loc[0]": 0.5, "scale": 1.5, "radius.rate": 1.5},
        SCALE,
        "J normals, the radius's",
    )
    return [(row, lambda z: z[0]) for row in (dirichlet, elliptical)]


def estimates(
    make: Callable[..., Any],
    values: list[float],
    first: Callable[[jax.Array], jax.Array],
    num_draws: int,
    chunk_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances `[2, P]`: of the pathwise estimator, of the score's."""
    arguments = tuple(map(jnp.float32, values))
    which = tuple(range(len(values)))
    pilot = jax.jit(jax.vmap(lambda key: first(make(*arguments).sample(key))))(
        jax.random.split(jax.random.key(1), 100_000)
    )
    low, median, high = (float(q) for q in np.quantile(pilot, [0.25, 0.5, 0.75]))

    def f(z: jax.Array) -> jax.Array:
        return jnp.tanh((first(z) - median) / (high - low))

    @jax.jit
    @jax.vmap
    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        path = jax.grad(lambda *a: f(make(*a).sample(key)), which)(*arguments)
        z = make(*arguments).sample(key)
        score = jax.grad(lambda *a: make(*a).log_prob(z), which)(*arguments)
        return jnp.stack(path), f(z) * jnp.stack(score)

    sums, squares = np.zeros((2, len(values))), np.zeros((2, len(values)))
    for chunk in range(num_draws // chunk_size):
        key = jax.random.fold_in(jax.random.key(0), chunk)
        for i, leaf in enumerate(draw(jax.random.split(key, chunk_size))):
            values_drawn = np.asarray(leaf, np.float64)
            sums[i] += np.sum(values_drawn, axis=0)
            squares[i] += np.sum(values_drawn**2, axis=0)
    count = num_draws // chunk_size * chunk_size
    return sums / count, squares / count - (sums / count) ** 2


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-draws", type=int, default=1_000_000)
    parser.add_argument("--chunk-size", type=int, default=100_000)
    args = parser.parse_args()

    scalars: list[tuple[Row, Callable[..., Any], bool]] = [
        *((row, lambda z: z, False) for row in ROWS),
        *((row, first, False) for row, first in vectors()),
        *((row, lambda z: z, True) for row in MOVING),
    ]
    print("| family | strategy | noise | parameter | ∂E f | pathwise | score | ratio |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: |")
    warnings = []
    for (name, make, parameters, strategy, noise), first, moves in scalars:
        mean, variance = estimates(
            make, list(parameters.values()), first, args.num_draws, args.chunk_size
        )
        for i, (parameter, value) in enumerate(parameters.items()):
            path, score = variance[:, i]
            pair = f"{score:.3g} | {score / path:.3g}"
            # An end of the support has no score; the mode of a triangle has one.
            if moves and parameter != "mode":
                # A triangle's has one, 1 / (z − low) there: of infinite variance.
                pair = "infinite | " if name == "Triangular" else "none | "
            else:
                error = np.sqrt((path + score) / args.num_draws)
                if abs(mean[0, i] - mean[1, i]) > 5 * error:
                    warnings.append(f"{name}.{parameter}: {mean[:, i]} ± {error:.2g}")
            print(
                f"| `{name}` | {strategy} | {noise} | {parameter} = {value:g} | "
                f"{mean[0, i]:.4f} | {path:.3g} | {pair} |",
                flush=True,
            )
    for line in warnings:
        print(f"\nThe means disagree: {line}")


if __name__ == "__main__":
    main()
