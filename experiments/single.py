"""One run and its report: what `experiments.mnist` and `experiments.frey_face` do."""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.reports.run import write_run_report
from experiments.storage.workdir import held
from experiments.trackers.process import copied
from experiments.training import runner
from experiments.training.result import Result

__all__ = ["run"]


def run(
    name: str,
    config: ConfigDict,
    workdir: str | Path = "",
    num_devices: int = 0,
    tracker: str = "",
) -> Result:
    """Runs a configuration and writes its report.

    Args:
      name: of the default workdir.
      config: validated.
      workdir: where; "" is a directory that is named after the configuration.
      num_devices: as in `experiments.training.runner.run`.
      tracker: a library that gets a copy; "" is none.
    """
    place = Path(workdir or runner.default_workdir(name, config))
    with held(place), StopRequest() as stop, copied(tracker, place):
        result = runner.run(config, place, stop, num_devices=num_devices)
        if distributed.is_writer():
            write_run_report(result, place)
    return result
