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
from functools import partial

from experiments.storage.lock import refuse_if_held

__all__ = ["run"]

if __name__ == "__main__":
    refuse_if_held(sys.argv)  # before JAX and the rest are imported

from experiments import cli, single

run = partial(single.run, "mnist")

if __name__ == "__main__":
    cli.main(run, config_file="default.py", usage=__doc__ or "")
