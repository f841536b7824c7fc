"""The numbers of a run, and the table that a person reads them in."""

from typing import Any

import aevb
from experiments.config import GENERIC_POSTERIORS
from experiments.evaluation.bounds import ACTIVE_THRESHOLD
from experiments.evaluation.probes import NUM_NEIGHBOURS
from experiments.evaluation.verdict import describe
from experiments.training.result import Result

__all__ = ["numbers_of", "rows_of"]


def numbers_of(result: Result) -> dict[str, Any]:
    """The numbers of `results.json`."""
    test, config = result.test, result.config
    numbers: dict[str, Any] = {
        "latent_dim": config.latent_dim,
        "bound_is": "eq. 6" if config.posterior in GENERIC_POSTERIORS else "eq. 7",
        "num_test": len(result.program.test),
        "timings": result.timings,
    }
    if test is not None:
        numbers |= {
            "test_bound": float(test.bound),
            "test_bound_std_error": float(test.std_error),
            "test_reconstruction": float(test.reconstruction),
            "test_kl": float(test.kl),
            "active_units": int(test.active_units),
        }
    else:
        numbers["train_objective"] = result.metrics[-1]["train/objective"]
    if config.weights != "point":
        last = result.metrics[-1]
        numbers |= {
            "weights_kl": last["train/weights_kl"],
            "evidence_bound": len(result.program.train) * last["train/objective"],
        }
    if test is not None and config.likelihood == "gaussian":
        num_dims = result.program.test.shape[1]
        bits = aevb.bits_per_dim(
            test.bound, num_dims=num_dims, levels=config.data.scale
        )
        numbers["test_bits_per_dim"] = float(bits)
    if result.probes is not None:
        numbers["probes"] = result.probes._asdict()
    if result.likelihood is not None:
        points, whole = result.likelihood
        found = describe(points)
        numbers["importance_sampling"] = {
            "log_likelihood": found["log_likelihood"],
            "std_error": found["std_error"],
            "ess_mean": found["ess"]["mean"],
            "ess_5th_percentile": found["ess"]["5%"],
            "num_samples": result.config.eval.num_samples,
            "num_points": len(points.indices),
        }
        if whole is not None:
            spread = found["std_error"] * len(points.indices) ** 0.5
            numbers["importance_sampling"]["test_set"] = {
                "log_likelihood": float(whole.mean),
                "std_error": float(whole.std_error),
                "std_error_over_images": spread / len(result.program.test) ** 0.5,
                "proxy_samples": result.config.eval.proxy_samples,
            }
    return numbers


def rows_of(numbers: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(quantity, value, remark) of the numbers, as a table has them."""
    rows = []
    if "importance_sampling" in numbers:
        found = numbers["importance_sampling"]
        k, points = found["num_samples"], found["num_points"]
        if "test_set" in found:
            whole = found["test_set"]
            rows.append(
                (
                    "log p(x) of the test set, nats",
                    f"{whole['log_likelihood']:.2f} ± {whole['std_error']:.2f}",
                    f"lower bound, K = {k:,} at {points:,} images and "
                    f"{whole['proxy_samples']:,} at all {numbers['num_test']:,}; ± is "
                    "the error of that choice, "
                    f"{whole['std_error_over_images']:.2f} that of other images",
                )
            )
        rows += [
            (
                f"log p(x) of {points:,} images, nats"
                if "test_set" in found
                else "log p(x), nats",
                f"{found['log_likelihood']:.2f} ± {found['std_error']:.2f}",
                f"lower bound by importance sampling, K = {k:,}, {points:,} test "
                "images; ± is the standard error over images",
            ),
            (
                "effective sample size",
                f"{found['ess_mean']:.0f}",
                f"of {k:,}, mean; 5th percentile {found['ess_5th_percentile']:.1f}",
            ),
        ]
    if "test_bound" in numbers:
        rows += _bound_rows(numbers)
    else:
        rows.append(
            (
                "objective, nats",
                f"{numbers['train_objective']:.2f}",
                "log p(x, z) of a training point at its chain's z, and the prior's "
                "share; the method has no encoder, and so no bound",
            )
        )
    if "weights_kl" in numbers:
        rows += _weight_rows(numbers)
    if "probes" in numbers:
        rows += _probe_rows(numbers["probes"])
    timings = numbers["timings"]
    names = {
        "training_images_per_second": ("training, images/s", ""),
        "evaluation_images_per_second": ("log p(x), images/s", "all samples of each"),
        "training_seconds": (
            "training, s",
            "of all processes, if interrupted",
        ),
        "total_seconds": ("in all, s", "data, compilation and evaluation included"),
    }
    for name, (label, remark) in names.items():
        if name in timings:
            digits = 0 if timings[name] >= 100 else 1
            rows.append((label, f"{timings[name]:,.{digits}f}", remark))
    return rows


def _probe_rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    def share(value: float) -> str:
        error = (value * (1 - value) / found["num_test"]) ** 0.5
        return f"{100 * value:.1f} ± {100 * error:.1f}"

    known = f"from E[z|x], after {found['num_train']:,} labelled training images"
    return [
        ("labels by a linear probe, %", share(found["linear"]), known),
        (
            f"labels by {NUM_NEIGHBOURS} nearest neighbours, %",
            share(found["nearest"]),
            known,
        ),
    ]


def _weight_rows(numbers: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (
            "evidence bound, nats",
            f"{numbers['evidence_bound']:,.0f}",
            "on log p(X) of the training set: N times the objective, last epoch's mean",
        ),
        (
            "KL of the weights, nats",
            f"{numbers['weights_kl']:,.0f}",
            "KL(q(theta) ‖ p(theta)), a part of it",
        ),
    ]


def _bound_rows(numbers: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = [
        (
            "bound, nats",
            f"{numbers['test_bound']:.2f} ± {numbers['test_bound_std_error']:.2f}",
            f"{numbers['bound_is']} on all {numbers['num_test']:,} test images",
        ),
        (
            "reconstruction",
            f"{numbers['test_reconstruction']:.2f}",
            "E log p(x|z), nats",
        ),
        ("KL", f"{numbers['test_kl']:.2f}", "KL(q(z|x) ‖ p(z)), nats"),
        (
            "active units",
            f"{numbers['active_units']}",
            f"of {numbers['latent_dim']}, Var E[z|x] > {ACTIVE_THRESHOLD}",
        ),
    ]
    if "test_bits_per_dim" in numbers:
        bits = f"{numbers['test_bits_per_dim']:.3f}"
        remark = "of the bound; a byte is an interval of the density"
        rows.insert(1, ("bits per dimension", bits, remark))
    return rows
