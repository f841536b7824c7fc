"""What is run for each figure of the paper: panels, methods, lengths, seeds.

A panel is a sweep: its methods have programs of their own, its seeds and step sizes are
lanes of them. What the paper leaves open is settled here and in
`experiments.configs.paper`, by the author's code of the time.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments.configs import frey_face, paper
from experiments.errors import ConfigError
from experiments.reproduction.appendix_d import AppendixE

__all__ = [
    "ADAM_STEP_SIZES",
    "LABELS",
    "SECTIONS",
    "STEP_SIZES",
    "Panel",
    "panels",
    "read_sections",
]

SECTIONS = ("2", "3", "4", "5", "readings", "beyond")
"""What `--figures` may name: the paper's figures, the readings of what it leaves open,
and the same comparison under other conditions."""

LABELS = {"aevb": "AEVB", "wake_sleep": "wake-sleep", "mcem": "MCEM"}

STEP_SIZES = (0.01, 0.02, 0.1)
"""Of Adagrad, section 5."""

ADAM_STEP_SIZES = (3e-4, 1e-3, 3e-3)

_LEAST_TRIAL = 50_000
_TRIAL_SHARE = 20

_MNIST_DIMS = (3, 5, 10, 20, 200)
_FREY_DIMS = (2, 5, 10, 20)
_NUM_TRAIN = 50_000
# Points of a curve.
_NUM_EVALUATIONS = 50
# Of the comparisons beyond the paper, and of the 2-D manifolds of Fig. 4, which are not
# compared with numbers; in a short run also of the seeds that show a spread.
_FEWER = 0.2
_SHORT = 10_000_000
_READING_SAMPLES = 1_000_000
# Where log p(x) is estimated for Fig. 3, as shares of the whole length.
_SHARES = (0.2, 0.5, 1.0)
# Shorter runs are looked at once, at their end: the paper's axis begins later. Fewer
# points by quadrature then, which takes half of the time of the estimates.
_FIRST_OF_FIGURE_3 = 2_000_000
_FEWER_BY_QUADRATURE = 25
# Between two checkpoints, unless a twentieth of the run is more.
_KEPT_SAMPLES = 200_000


class Panel(NamedTuple):
    """Runs that are drawn into one picture.

    Attributes:
      name: of its folder.
      section: one of `SECTIONS`.
      title: for a person.
      config: what its runs share, at their full length.
      methods: the algorithms.
      seeds: of each method.
      step_sizes: to choose from.
      dream_clip: of wake-sleep on binary pixels: P(1) of a dream's pixels stays so far
        from 0 and 1, as in the author's code (`MLBN.gen_xz`).
      trial: the panel whose trial of the step sizes counts; None is its own.
      drawn_in: the name of the panel in whose picture it is drawn; "" is its own.
      likelihoods: how log p(x) of its runs is estimated; None is not at all.
    """

    name: str
    section: str
    title: str
    config: ConfigDict
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    step_sizes: tuple[float, ...] = STEP_SIZES
    dream_clip: float = 1e-3
    trial: "Panel | None" = None
    drawn_in: str = ""
    likelihoods: AppendixE | None = None

    @property
    def trial_samples(self) -> int:
        """How long each step size is tried: "the first few training iterations".

        A twentieth of the run, and an epoch of MNIST at least. After fewer, a step
        size that is ahead in the end may still be recovering from its first steps.
        """
        length = self.config.train_samples
        return min(length, max(_LEAST_TRIAL, length // _TRIAL_SHARE))


def panels(
    sections: Sequence[str], samples: int, frey_face_path: str = ""
) -> list[Panel]:
    """Every panel of some sections, in the order in which they are run.

    Args:
      sections: some of `SECTIONS`.
      samples: training samples evaluated, the length of Fig. 2's axis.
      frey_face_path: of the data; "" leaves out what needs them.
    """
    found = []
    if "2" in sections:
        found += [_mnist(latent_dim, samples) for latent_dim in _MNIST_DIMS]
        found.append(_more_seeds(samples))
    if "2" in sections and frey_face_path:
        found += [_frey(dim, samples, frey_face_path) for dim in _FREY_DIMS]
    if "3" in sections:
        found += [_marginal(1000, samples), _marginal(_NUM_TRAIN, samples)]
    if "4" in sections:
        found += _manifolds(samples, frey_face_path)
    if "5" in sections:
        found += [
            _mnist(dim, samples) if dim != 2 else _two_latents(samples)
            for dim in (2, 5, 10, 20)
        ]
    if "readings" in sections:
        found += _readings(samples)
    if "beyond" in sections:
        found += _beyond(samples)
        if frey_face_path:
            found.append(_wide_start(samples, frey_face_path))
    unique = {panel.name: panel for panel in found}
    return list(unique.values())


def _fewer(samples: int) -> int:
    return round(_FEWER * samples)


def _evaluated(config: ConfigDict, num_train: int) -> ConfigDict:
    """A curve of some fifty points; nothing beside the bound is evaluated."""
    epochs = max(1, config.train_samples // num_train)
    config.eval.every = max(1, epochs // _NUM_EVALUATIONS)
    config.eval.num_samples = 0
    config.checkpoint.every = max(1, epochs // 20, _KEPT_SAMPLES // num_train)
    config.checkpoint.keep = 1
    return config


def _mnist_config(latent_dim: int, samples: int) -> ConfigDict:
    config = paper.get_config(f"nz={latent_dim},samples={samples}")
    num_train = min(_NUM_TRAIN, samples)
    config.data.num_train = 0 if num_train == _NUM_TRAIN else num_train
    return _evaluated(config, num_train)


def _mnist(latent_dim: int, samples: int) -> Panel:
    return Panel(
        f"mnist-{latent_dim}",
        "2",
        f"MNIST, N_z = {latent_dim}",
        _mnist_config(latent_dim, samples),
        ("aevb", "wake_sleep"),
    )


def _more_seeds(samples: int) -> Panel:
    """How far the numbers of one seed are those of another, at N_z = 20."""
    main = _mnist(20, samples)
    length = samples if samples >= _SHORT else _fewer(samples)
    return Panel(
        "mnist-20-seeds",
        "2",
        "MNIST, N_z = 20, two more seeds",
        _mnist_config(20, length),
        main.methods,
        seeds=(1, 2),
        trial=main,
        drawn_in=main.name,
    )


def _frey_config(latent_dim: int, samples: int, path: str) -> ConfigDict:
    config = frey_face.get_config(f"nz={latent_dim},samples={samples}")
    config.data.path = path
    return _evaluated(config, 1600)


def _frey(latent_dim: int, samples: int, path: str) -> Panel:
    return Panel(
        f"frey_face-{latent_dim}",
        "2",
        f"Frey Face, N_z = {latent_dim}",
        _frey_config(latent_dim, samples, path),
        ("aevb", "wake_sleep"),
    )


def _marginal(num_train: int, samples: int) -> Panel:
    config = paper.get_config(f"nz=3,samples={samples}")
    config.hidden_dims = (100,)
    config.data.num_train = num_train = min(num_train, samples)
    epochs = max(1, samples // num_train)
    how = AppendixE()
    if samples < _FIRST_OF_FIGURE_3:
        how = how._replace(num_quadrature=_FEWER_BY_QUADRATURE)
    else:
        config.checkpoint.at = tuple(
            sorted({max(1, round(share * epochs)) for share in _SHARES})
        )
    return Panel(
        f"marginal-{num_train}",
        "3",
        f"MNIST, N_train = {num_train:,}",
        _evaluated(config, num_train),
        ("aevb", "wake_sleep", "mcem"),
        likelihoods=how,
    )


def _two_latents(samples: int) -> Panel:
    return Panel(
        "mnist-2",
        "4",
        "MNIST, N_z = 2",
        _mnist_config(2, _fewer(samples)),
        ("aevb",),
    )


def _manifolds(samples: int, frey_face_path: str) -> list[Panel]:
    found = [_two_latents(samples)]
    if frey_face_path:
        found.append(_frey(2, samples, frey_face_path))
    return found


def _readings(samples: int) -> list[Panel]:
    """What the paper leaves open and the curve depends on, one change at a time.

    What they are changes of is `mnist-20`, whose step sizes they have, but for the
    last one: a gentler start lets wake-sleep live with a larger step.
    """
    main = _mnist(20, samples)
    # What a larger step size of wake-sleep is worth shows late.
    late = main.config.copy_and_resolve_references()
    late.hold = 10
    samples = min(samples, _READING_SAMPLES)
    changes = {
        "dynamic": (
            "pixels binarised at every presentation",
            {"data.binarization": "dynamic"},
        ),
        "static": ("pixels binarised once", {"data.binarization": "static"}),
        "hold": ("sums of squares filled for 100 updates first", {"hold": 100}),
        "encoder-biases": (
            "prior on the encoder's biases too",
            {"weight_prior_on": "encoder_biases"},
        ),
        "all-biases": ("prior on all parameters", {"weight_prior_on": "all"}),
    }
    found = []
    for name, (title, fields) in changes.items():
        config = _mnist_config(20, samples)
        config.update_from_flattened_dict(fields)
        found.append(
            Panel(
                f"reading-{name}",
                "readings",
                title,
                config,
                ("aevb",),
                trial=main,
            )
        )
    config = _mnist_config(20, samples)
    exact = Panel(
        "reading-exact-dreams",
        "readings",
        "wake-sleep's dreams drawn exactly",
        config,
        ("wake_sleep",),
        dream_clip=0.0,
        trial=main,
    )
    short_hold = Panel(
        "reading-short-hold",
        "readings",
        "wake-sleep, sums of squares filled for 10 updates first",
        late,
        ("wake_sleep",),
        step_sizes=(0.02,),
    )
    return [*found, exact, short_hold]


def _beyond(samples: int) -> list[Panel]:
    """Figure 2 at N_z = 20 where a bound is one of a likelihood, and with Adam."""
    main = _mnist(20, samples)
    found = []
    for binarization in ("grey", "dynamic"):
        for optimizer in ("adagrad", "adam"):
            config = _mnist_config(20, _fewer(samples))
            config.data.binarization = binarization
            step_sizes = STEP_SIZES
            if optimizer == "adam":
                config.optimizer, config.optimizer_args = "adam", ""
                step_sizes = ADAM_STEP_SIZES
            as_in_figure_2 = (binarization, optimizer) == ("grey", "adagrad")
            found.append(
                Panel(
                    f"beyond-{binarization}-{optimizer}",
                    "beyond",
                    f"{binarization} pixels, {optimizer.capitalize()}",
                    config,
                    main.methods,
                    step_sizes=step_sizes,
                    trial=main if as_in_figure_2 else None,
                )
            )
    return found


def _wide_start(samples: int, path: str) -> Panel:
    """Frey Face from first weights that let z matter: does wake-sleep collapse?"""
    config = _frey_config(10, _fewer(samples), path)
    config.init, config.init_scale = "lecun_normal", 1.0
    return Panel(
        "frey_face-10-wide",
        "beyond",
        "Frey Face, N_z = 10, first weights N(0, 1 / inputs)",
        config,
        ("aevb", "wake_sleep"),
    )


def read_sections(text: str) -> list[str]:
    """Reads `--figures=2,4`; all of `SECTIONS` where it is empty.

    Raises:
      ConfigError: a name is not one of them.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in SECTIONS:
            raise ConfigError(
                f"--figures={text}: {name!r} is none of {', '.join(SECTIONS)}"
            )
    return names or list(SECTIONS)
