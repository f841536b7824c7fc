"""The algorithms that the paper compares AEVB with (section 5 and Appendix E).

Both have AEVB's interface, `aevb.Algorithm`, so that `aevb.epoch`, lanes, checkpoints
and devices take them as they are. The two phases of wake-sleep and the E-step of MCEM
are functions of one datapoint, to build others with.
"""

from aevb.baselines.mcem import MCEMState, e_step, mcem
from aevb.baselines.wake_sleep import (
    Dream,
    WakeSleep,
    sample_dream,
    sleep_phase,
    wake_phase,
    wake_sleep,
    wake_sleep_step,
)

__all__ = [
    "Dream",
    "MCEMState",
    "WakeSleep",
    "e_step",
    "mcem",
    "sample_dream",
    "sleep_phase",
    "wake_phase",
    "wake_sleep",
    "wake_sleep_step",
]
