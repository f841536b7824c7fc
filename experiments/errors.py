"""What can go wrong for a user, and the exit code of each.

This module imports only the standard library, so a refused command ends at once.
"""

__all__ = [
    "DIVERGED",
    "DONE",
    "LOST",
    "NO_CHECKPOINT",
    "STOPPED",
    "USAGE",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "ExperimentError",
    "StoppedError",
    "WorkdirError",
]

DONE = 0
"""Exit code: the command did all that was asked for."""

USAGE = 1
"""Exit code: a flag, the configuration, the data or the workdir is wrong."""

DIVERGED = 2
"""Exit code: a loss, a gradient or a parameter is not finite."""

NO_CHECKPOINT = 3
"""Exit code: there are checkpoints, and none of them can be used."""

STOPPED = 75
"""Exit code: a signal stopped the command after it had saved; the same goes on."""

LOST = 76
"""Exit code: another process of the job was lost; the same command goes on."""


class ExperimentError(Exception):
    """An error that a command prints as one line; `exit_code` is the command's."""

    exit_code = USAGE


class ConfigError(ExperimentError, ValueError):
    """A configuration that cannot be run; the message is for who wrote it."""


class DataError(ExperimentError, ValueError):
    """Bad data: one sentence that says what was got, what was expected, the mend."""


class WorkdirError(ExperimentError, RuntimeError):
    """A workdir that cannot be used or written; the message is for who named it."""


class DivergenceError(ExperimentError, RuntimeError):
    """A loss, gradient or parameter is not finite."""

    exit_code = DIVERGED


class CheckpointError(ExperimentError, RuntimeError):
    """No usable checkpoint where one was expected."""

    exit_code = NO_CHECKPOINT


class StoppedError(ExperimentError):
    """A signal asked for it, and what was done is saved."""

    exit_code = STOPPED

    def __init__(
        self, message: str = "stopped and saved: the same command goes on from here"
    ) -> None:
        """There is one message for all of them."""
        super().__init__(message)
