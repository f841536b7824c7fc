"""What codes are worth: the labels that two simple classifiers learn of them.

    python -m benchmarks.code_probes --workdir=runs/code_probes

Trains the default configuration with each number of latent dimensions and seed, with
all 50 000 labelled training codes for the probes, and prints means over seeds and their
standard errors. The same command again goes on where it stopped.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import mnist
from experiments.config import validate
from experiments.configs import default
from experiments.storage.atomic import read_json

LATENTS = (2, 10, 40)


def configure(latent_dim: int, seed: int) -> ConfigDict:
    """The default run, without log p(x), and with every training code."""
    config = default.get_config()
    config.latent_dim, config.seed = latent_dim, seed
    config.eval.num_samples = 0
    config.eval.probe_points = 50_000
    validate(config)
    return config


def measure(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """The numbers of a run; it is trained unless it is there."""
    results = workdir / "results.json"
    if not results.exists():
        workdir.parent.mkdir(parents=True, exist_ok=True)
        mnist.run(config, workdir)
    return read_json(results)


def cell(values: list[float], digits: int) -> str:
    """The mean over seeds, and its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5 if values[1:] else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("| N_z | test bound | linear probe, % | 5 nearest neighbours, % |")
    print("|---|---|---|---|")
    for latent_dim in LATENTS:
        found = [
            measure(
                configure(latent_dim, seed), options.workdir / f"{latent_dim}-{seed}"
            )
            for seed in range(options.seeds)
        ]
        bounds = [numbers["test_bound"] for numbers in found]
        shares = [
            [100 * numbers["probes"][name] for numbers in found]
            for name in ("linear", "nearest")
        ]
        cells = [cell(bounds, 2), *(cell(values, 2) for values in shares)]
        print(f"| {latent_dim} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
