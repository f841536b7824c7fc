"""Trains AEVB on MNIST, or on any other image data set, and reports what it found.

    python -m experiments.mnist
    python -m experiments.mnist --config=experiments/configs/paper.py:nz=20
    python -m experiments.mnist --config.latent_dim=2 --workdir=runs/two

The same command again continues where it stopped, or shows the finished result.

    --config=FILE.py[:name=value,...]   a file of experiments/configs (each says its
                                        command, minutes and expected number)
    --config.FIELD=VALUE                changes one field; they are listed, with what
                                        they mean, in experiments/config.py
    --workdir=DIR                       where the run is written and continued from

Fields: seed, data.{name, path, binarization, scale, num_train, num_valid}, latent_dim,
hidden_dims, activation, init, init_scale, bias_init_scale, output_bias_from_data,
likelihood, precision, estimator, num_samples, weight_prior, epochs or train_samples,
batch_size, optimizer, optimizer_args, learning_rate, schedule, warmup, eval.{every,
curve, num_samples, num_points, chunk_size, batch_size}.

Exit codes: 0 done; 1 usage, configuration or data error; 2 diverged; 3 no usable
checkpoint; 75 stopped by a signal after saving (run the same command again).
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import cli, runner


def run(config: ConfigDict, workdir: str) -> None:
    """Runs one configuration in `workdir`, or in one that is named after it."""
    runner.run(config, Path(workdir or runner.default_workdir("mnist", config)))


if __name__ == "__main__":
    cli.main(run, config_file="default.py", usage=__doc__)
