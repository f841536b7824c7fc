"""What is run for each figure."""

import pytest

from experiments.config import validate
from experiments.errors import ConfigError
from experiments.reproduction import training
from experiments.reproduction.protocol import SECTIONS, panels, read_sections


@pytest.mark.parametrize("samples", [10_000, 1_000_000, 100_000_000])
def test_every_run_of_every_panel_is_valid(samples):
    found = panels(SECTIONS, samples, "frey_rawface.mat")
    assert len({panel.name for panel in found}) == len(found) == 25
    for panel in found:
        for method in panel.methods:
            runs = training._trials(panel, method)
            assert len(runs) == len(panel.step_sizes)
            for run in runs:
                validate(run.config)
                assert run.config.algorithm == method
                assert run.config.train_samples <= samples
        validate(panel.config)
        assert panel.config.train_samples <= samples


def test_the_paper_s_panels_are_there():
    found = {panel.name: panel for panel in panels(("2", "3"), 10**7, "frey.mat")}
    for latent_dim in (3, 5, 10, 20, 200):
        panel = found[f"mnist-{latent_dim}"]
        assert panel.config.latent_dim == latent_dim
        assert tuple(panel.config.hidden_dims) == (500,)
        assert panel.methods == ("aevb", "wake_sleep")
        assert panel.step_sizes == (0.01, 0.02, 0.1)
        assert panel.trial_samples == 500_000
        assert panel.config.train_samples == 10**7
    for latent_dim in (2, 5, 10, 20):
        config = found[f"frey_face-{latent_dim}"].config
        assert (config.latent_dim, config.likelihood) == (latent_dim, "gaussian")
        assert tuple(config.hidden_dims) == (200,)
    for num_train in (1000, 50_000):
        panel = found[f"marginal-{num_train}"]
        assert panel.methods == ("aevb", "wake_sleep", "mcem")
        assert panel.config.latent_dim == 3
        assert tuple(panel.config.hidden_dims) == (100,)
        assert panel.config.data.num_train == num_train
        epochs = 10**7 // num_train
        at = tuple(panel.config.checkpoint.at)
        assert at == (epochs // 5, epochs // 2, epochs)


def test_monte_carlo_em_has_the_whole_training_set_in_an_iteration():
    [small, _] = panels(("3",), 10**6)
    for run in training._trials(small, "mcem"):
        assert run.config.batch_size == 1000
    for run in training._trials(small, "aevb"):
        assert run.config.batch_size == 100


def test_only_wake_sleep_on_binary_pixels_has_its_dreams_clipped():
    found = {panel.name: panel for panel in panels(SECTIONS, 10**6, "frey.mat")}

    def clip(name, method):
        return training._trials(found[name], method)[0].config.dream_clip

    assert clip("mnist-20", "wake_sleep") == 1e-3
    assert clip("mnist-20", "aevb") == clip("frey_face-2", "wake_sleep") == 0
    exact = found["reading-exact-dreams"]
    assert training._fields(exact, "wake_sleep", 0.01, 0)["dream_clip"] == 0


def test_a_reading_is_one_change_of_the_panel_whose_step_size_it_has():
    found = {panel.name: panel for panel in panels(SECTIONS, 10**7)}
    main = found["mnist-20"]
    for name, panel in found.items():
        if panel.section == "readings" and panel.trial:
            assert panel.trial.name == main.name
            assert panel.config.train_samples == 10**6
            folders = [
                training._trial_folder(one, "aevb", training.Path("work"))
                for one in (panel, main)
            ]
            assert folders[0] == folders[1], name
            trials = [training._trials(one, "aevb") for one in (panel, main)]
            configs = [[run.config.to_dict() for run in runs] for runs in trials]
            assert configs[0] == configs[1]


def test_the_same_trial_is_not_made_twice():
    found = {panel.name: panel for panel in panels(SECTIONS, 10**6)}
    main, again = found["mnist-20"], found["beyond-grey-adagrad"]
    assert training.trials_of(again) == training.trials_of(main)
    own = again.config.to_dict() | {"train_samples": 10**6}
    differing = {name for name in own if own[name] != main.config.to_dict()[name]}
    assert differing <= {"checkpoint", "eval"}  # of a shorter run


def test_without_frey_face_its_panels_are_left_out():
    names = [panel.name for panel in panels(SECTIONS, 10**6)]
    assert not any("frey" in name for name in names)
    assert len(names) == 25 - 5


def test_sections_are_read():
    assert read_sections("") == list(SECTIONS)
    assert read_sections("2, 4") == ["2", "4"]
    with pytest.raises(ConfigError, match="--figures=2,7: '7' is none of 2, 3, 4, 5"):
        read_sections("2,7")
