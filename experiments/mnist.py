"""Trains AEVB on MNIST, or on any other image data set, and reports what it found.

    python -m experiments.mnist
    python -m experiments.mnist --config=experiments/configs/paper.py:nz=20
    python -m experiments.mnist --config.latent_dim=2 --workdir=runs/two

The same command again continues where it stopped, or shows the finished result.

    --config=FILE.py[:name=value,...]   a file of experiments/configs (each says its
                                        command, minutes and expected number)
    --config.FIELD=VALUE                changes one field
    --workdir=DIR                       where the run is written and continued from

Exit codes: 0 done; 1 usage, configuration, data or workdir error; 2 diverged; 3 no
usable checkpoint; 75 stopped by a signal after saving (run the same command again); 76
another process of the job was lost (the same command on all of them goes on).
"""

import sys
from pathlib import Path

from experiments.storage.lock import refuse_if_held

__all__ = ["run"]

if __name__ == "__main__":
    refuse_if_held(sys.argv)  # before JAX and the rest are imported

from ml_collections import ConfigDict

from experiments import cli
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.reports.run import write_run_report
from experiments.storage.workdir import held
from experiments.training import runner
from experiments.training.result import Result


def run(config: ConfigDict, workdir: str | Path = "", num_devices: int = 0) -> Result:
    """Runs a configuration and writes its report.

    Args:
      config: validated.
      workdir: where; "" is a directory that is named after the configuration.
      num_devices: as in `experiments.training.runner.run`.
    """
    place = Path(workdir or runner.default_workdir("mnist", config))
    with held(place), StopRequest() as stop:
        result = runner.run(config, place, stop, num_devices=num_devices)
        if distributed.is_writer():
            write_run_report(result, place)
    return result


if __name__ == "__main__":
    cli.main(run, config_file="default.py", usage=__doc__ or "")
