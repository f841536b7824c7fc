"""Trains AEVB on Frey Face as the paper does, and reports what it found.

    python -m experiments.frey_face --config.data.path=frey_rawface.mat
    python -m experiments.frey_face --config=experiments/configs/frey_face.py:nz=2 \\
        --config.data.path=frey_rawface.mat

The data are not bundled, as their licence is unclear: the original is at
https://cs.nyu.edu/~roweis/data/frey_rawface.mat. The path is that file, its directory,
or a tensorflow-datasets directory with a dataset frey_face that you prepared.

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

run = partial(single.run, "frey_face")

if __name__ == "__main__":
    cli.main(run, config_file="frey_face.py", usage=__doc__ or "")
