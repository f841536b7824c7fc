"""What was x, given what is seen of it: inpainting, denoising, super-resolution.

    python -m experiments.reconstruct --workdir=runs/DIR
    python -m experiments.reconstruct --workdir=runs/DIR --task=inpaint \\
        --mask=half,random:0.8,mask.png --methods=mean,mwg,hmc
    python -m experiments.reconstruct --workdir=runs/DIR --images=mine.png --damaged \\
        --task=inpaint --mask=mask.png

A trained run answers for test images that a task damages, or for images of your own
(PNG, NPY or IDX). Samplers of p(z|y) stand beside baselines that are not ours: the mean
of the training images, the nearest of them, and the encoder on a filled-in image. Every
method is scored against the whole image. AIS estimates the likelihood of what is
missing, log p(x|y), which belongs to the model and not to a method; with up to three
latent dimensions there is the truth by quadrature.

With --damaged your images are what is seen: there is no truth, and no score.

The work is saved point by point. If you stop it, the same command continues. It writes
results.json, figures/, report.html, and of your own images restored/, in the folder
`reconstruct` of the workdir, or in --out.

Exit codes: 0 done; 1 usage, data or workdir error; 3 no usable checkpoint; 75 stopped
by a signal after saving (run the same command again).
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from experiments import cli
from experiments.arguments import Parser, add_run, count, positive, told
from experiments.errors import ConfigError
from experiments.processes.interruption import StopRequest
from experiments.reports.restoration import write_restoration_report
from experiments.restoration.measuring import Asked, measure
from experiments.restoration.methods import METHODS
from experiments.restoration.problem import Budget
from experiments.restoration.tasks import TASKS
from experiments.storage.workdir import held
from experiments.training.opened import load_run

__all__ = ["main", "parse"]

_FOLDER = "reconstruct"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      ConfigError: anything is wrong with it.
    """
    parser = Parser(prog="python -m experiments.reconstruct", description=__doc__)
    add = parser.add_argument
    add_run(parser, folder=_FOLDER)
    add(
        "--task",
        type=_words,
        default=list(TASKS),
        help=f"with commas, of {', '.join(TASKS)} (all)",
    )
    add(
        "--mask",
        type=_words,
        default=["half", "quadrant", "random:0.5", "random:0.8"],
        help="of inpaint: half, quadrant, quadrants (three), random:SHARE (of missing "
        "pixels), PNG (black is missing) or NPY files (0 is missing); "
        "(half,quadrant,random:0.5,random:0.8)",
    )
    add(
        "--flip",
        type=_numbers(0, 0.5),
        default=[0.1, 0.2],
        help="of denoise, binary pixels: the share that is flipped (0.1,0.2)",
    )
    add(
        "--noise",
        type=_numbers(0, 10),
        default=[0.1, 0.3],
        help="of denoise, grey pixels: the noise's standard deviation (0.1,0.3)",
    )
    add(
        "--factor",
        type=_factors,
        default=[2, 4],
        help="of superresolve: one pixel of a block of that size is seen; of grey "
        "pixels the mean of the block (2,4)",
    )
    add(
        "--methods",
        type=_words,
        default=list(METHODS),
        help=f"with commas, of {', '.join(METHODS)} (all)",
    )
    add("--images", type=Path, help="images of your own: a PNG, NPY or IDX file")
    add(
        "--damaged",
        action="store_true",
        help="your images are what is seen: nothing more is done to them",
    )
    add(
        "--num-points",
        type=count,
        default=200,
        help="images, evenly spaced; 0 is all (200)",
    )
    add("--shown", type=positive, default=8, help="images in the pictures (8)")
    add("--chains", type=_from(4), default=16, help="Markov chains an image (16)")
    add(
        "--steps",
        type=_power_of_two,
        default=128,
        help="of each chain, a power of two; the first half is burn-in (128)",
    )
    add("--leapfrog-steps", type=positive, default=4, help="of HMC and AIS (4)")
    add("--temperatures", type=_from(3), default=200, help="of AIS (200)")
    add(
        "--simulated",
        type=count,
        default=20,
        help="images that the model makes, for log p(x|y) from both sides (20)",
    )
    add("--seed", type=count, default=0, help="other masks, noise and draws (0)")
    add("--batch-size", type=positive, default=8, help="images at a time (8)")
    add(
        "--devices",
        type=count,
        default=1,
        help="devices that share the images; 0 is all of this machine (1)",
    )
    options = parser.parse_args(argv)
    for flag, known in (("task", TASKS), ("methods", tuple(METHODS))):
        for word in getattr(options, flag):
            if word not in known:
                parser.error(f"--{flag}: {word!r} is none of {', '.join(known)}")
    if options.damaged and options.images is None:
        parser.error("--damaged is of --images: name a file of your own images")
    random = [mask for mask in options.mask if mask.startswith("random:")]
    if options.damaged and "inpaint" in options.task and random:
        parser.error(
            f"--mask={random[0]} is drawn anew, and is not where your images are "
            "damaged: give the mask as a PNG or NPY file"
        )
    return options


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty word between commas")
    return list(dict.fromkeys(words))


def _numbers(above: float, below: float) -> Callable[[str], list[float]]:
    def read(text: str) -> list[float]:
        try:
            values = [float(word) for word in text.split(",")]
        except ValueError:
            values = [float("nan")]
        if not all(above < value < below for value in values):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not numbers between {above:g} and {below:g}, with commas"
            )
        return list(dict.fromkeys(values))

    return read


def _factors(text: str) -> list[int]:
    return list(dict.fromkeys(positive(word) for word in text.split(",")))


def _from(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = count(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return read


def _power_of_two(text: str) -> int:
    value = positive(text)
    if value < 8 or value & (value - 1):
        raise argparse.ArgumentTypeError(f"{text} is no power of two from 8 on")
    return value


def _run(argv: Sequence[str] | None) -> None:
    options = parse(argv)
    folder = options.out or options.workdir / _FOLDER
    opened = load_run(options.workdir, step=options.step, data_path=options.data_path)
    if not opened.program.is_likelihood:
        raise ConfigError(
            "this run has grey pixels under a Bernoulli, which is no likelihood, so "
            "there is no p(x|y): train with --config.data.binarization=dynamic or "
            "static"
        )
    if not opened.program.has_encoder:
        raise ConfigError(
            "this run was trained by MCEM, and has no encoder, which the methods "
            "start from: train with --config.algorithm=aevb or wake_sleep"
        )
    if opened.config.weights != "point":
        raise ConfigError(
            f"this run has a posterior over its weights (config.weights is "
            f"{opened.config.weights}), and the methods are for one decoder: train "
            "with --config.weights=point"
        )
    asked = Asked(
        tasks=options.task,
        masks=options.mask,
        rates=options.flip,
        noises=options.noise,
        factors=options.factor,
        methods=options.methods,
        images=options.images,
        damaged=options.damaged,
        num_points=options.num_points,
        num_shown=options.shown,
        num_simulated=options.simulated,
        budget=Budget(
            options.chains, options.steps, options.leapfrog_steps, options.temperatures
        ),
        seed=options.seed,
        batch_size=options.batch_size,
        devices=options.devices,
    )
    with held(folder), StopRequest() as stop:
        found = measure(opened, asked, folder, stop)
        write_restoration_report(
            found,
            folder,
            title=f"What was x? {opened.dataset.name}, "
            f"{opened.config.latent_dim} latent dims",
            config=opened.config.to_dict(),
            options=told(options)
            | {
                "step": opened.step,
                "images": options.images.name if options.images else "",
            },
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, writes the report and returns the exit code."""
    return cli.exit_codes(partial(_run, argv))


if __name__ == "__main__":
    raise SystemExit(main())
