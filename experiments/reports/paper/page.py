"""The page about the paper's figures: `experiments.paper` writes it as it goes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config import flatten
from experiments.reports.page import write_report
from experiments.reports.paper.export import write_curves
from experiments.reports.paper.pictures import pictures_of
from experiments.reports.paper.tables import tables_of
from experiments.reports.paper.verdicts import Verdict, verdicts
from experiments.reports.tables import format_table
from experiments.reproduction.outcome import Outcome
from experiments.reproduction.protocol import LABELS
from experiments.storage.atomic import write_json

__all__ = ["print_paper_tables", "write_paper_report"]

# Where the data lie, how often something is looked at, and what each panel sweeps.
_NOT_SHOWN = {
    "data.path",
    "algorithm",
    "learning_rate",
    "seed",
    "dream_clip",
    "eval.every",
    "checkpoint.every",
    "checkpoint.keep",
    "checkpoint.at",
}
NOTES = (
    "Protocol (section 5). One hidden layer of tanh units in the encoder and in the "
    "decoder, 500 on MNIST and 200 on Frey Face; minibatches of M = 100, L = 1; "
    "Adagrad with one of three step sizes, the one with the best bound on the "
    "training data after a twentieth of the run (50,000 samples at least); a N(0, I) "
    "prior on the weights (MAP). Wake-sleep has the same networks, minibatches, "
    "optimizer, prior and rule for the step size; its sleep phase makes one dream for "
    "each datapoint, whose pixels have P(1) kept from 0 and 1 by 0.001, as in the "
    "author's code. MCEM has the decoder, a chain for each datapoint, 10 leapfrog "
    "steps, 5 weight updates on the whole training set; its samples are counted once "
    "an iteration: with that count the paper's MCEM at N_train = 1000 and AEVB agree "
    "after the same number of weight updates.",
    "What the paper leaves open, and what is run here. MNIST pixels are grey, byte / "
    "256, under a Bernoulli: the bound is then not one of a likelihood (`readings` "
    "and `beyond` have binary pixels). The 60 000 training images give the first 50 "
    "000. Adagrad's sums start at 0 and the first step moves. Weights and biases "
    "start as N(0, 0.01^2), encoder log variances at 0; the prior is on the matrices. "
    "Minibatches are an epoch's order, without replacement. `readings` changes one at "
    "a time.",
    "Test bounds are eq. 7 with one draw a datapoint, for both methods; train bounds "
    "are the mean over an epoch's minibatches, before each update.",
    "Frey Face: 1965 frames in a fixed random order (numpy RandomState(0)), the first "
    "1600 to train, the last 365 to test; byte / 256; densities, so nats can have any "
    "sign. The standard deviation of a pixel is at least 1/256/sqrt(12), that of "
    "rounding to a byte. Bits per dimension take each byte as an interval of 1/256.",
    "The paper's curves are digitised from its Fig. 2 and 3 (Kingma and Welling, "
    "arXiv 1312.6114), to 0.1 to 0.3 nats on smooth parts.",
)


def write_paper_report(
    outcomes: Sequence[Outcome],
    sections: Sequence[str],
    samples: int,
    workdir: Path,
) -> Path:
    """Writes the page of what is there, `report.html`, and its numbers; returns it.

    `verdicts.json` has the table of verdicts, `curves.csv` every curve.
    """
    found = verdicts(outcomes)
    done = sum(bool(outcome.curves) for outcome in outcomes)
    tests = [one for one in found if one.split == "test"]
    summary = [
        ("panels", f"{done} of {len(outcomes)}", "that have runs"),
        ("training samples", f"{samples:.2g}", "of a run of Fig. 2"),
    ]
    for method, label in LABELS.items():
        own = [one for one in tests if one.method == method]
        good = [one for one in own if one.words != "lower"]
        if own:
            remark = "test numbers in the band of the paper's, or higher"
            summary.append((label, f"{len(good)} of {len(own)}", remark))
    write_json(workdir / "verdicts.json", {"rows": [_row(one) for one in found]})
    write_curves(outcomes, workdir / "curves.csv")
    return write_report(
        workdir / "report.html",
        title="Auto-Encoding Variational Bayes, the paper's figures again",
        summary=summary,
        tables=tables_of(outcomes),
        figures=pictures_of(outcomes, sections, workdir / "figures"),
        config=_settings(outcomes),
        notes=NOTES,
    )


def print_paper_tables(outcomes: Sequence[Outcome]) -> None:
    """Prints the verdicts and how much faster AEVB is."""
    for table in tables_of(outcomes)[:3]:
        print(f"\n{table.title}\n{format_table(table.columns, table.rows)}")


def _row(verdict: Verdict) -> dict[str, Any]:
    return verdict._asdict() | {"verdict": verdict.words}


def _settings(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The settings of the first panel, and of every other one those that differ."""
    first, *others = [
        (outcome.panel.name, flatten(outcome.panel.config.to_dict()))
        for outcome in outcomes
    ]
    base = {name: value for name, value in first[1].items() if name not in _NOT_SHOWN}
    differences = {
        panel: {
            name: value
            for name, value in fields.items()
            if name in base and value != base[name]
        }
        for panel, fields in others
    }
    return base | {name: fields for name, fields in differences.items() if fields}
