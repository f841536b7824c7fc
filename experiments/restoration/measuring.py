"""All measures that a command asks for, task by task, saved as they are made."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.pictures import read_pictures
from experiments.evaluation.annealing import AnnealingPath, annealed, find_step_sizes
from experiments.evaluation.kinds import Estimator, Kind
from experiments.evaluation.points import (
    Measured,
    Progress,
    evenly_spaced,
    point_evaluator,
    points_identity,
    stop_together,
)
from experiments.keys import Stream, stream_key
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.restoration.exact import LARGEST, exact_measures
from experiments.restoration.measures import (
    PICTURES,
    Bundle,
    Model,
    average_pixels,
    find_restoring_steps,
    method_estimator,
    sandwich_estimator,
)
from experiments.restoration.methods import METHODS
from experiments.restoration.problem import Budget
from experiments.restoration.tasks import Task, make_tasks
from experiments.storage.digests import digests
from experiments.storage.parts import Parts
from experiments.training.opened import Opened
from experiments.training.progress import duration

__all__ = ["Asked", "Found", "TaskFound", "measure"]

# Of a binary image of the user's own, a pixel of at least so much is 1.
_WHITE = 128


class Asked(NamedTuple):
    """What is to be measured.

    Attributes:
      tasks, masks, rates, noises, factors: as in `make_tasks`.
      methods: of `METHODS`.
      images: a file of the user's own images; None is the test split.
      damaged: whether those are what is seen.
      num_points: images, evenly spaced; 0 is all.
      num_shown: of them in pictures.
      num_simulated: images of the model's own, for bounds from both sides.
      budget: of the samplers.
      seed: other masks, noise and draws.
      batch_size: images at a time on each device.
      devices: that share the images; 0 is all.
    """

    tasks: Sequence[str]
    masks: Sequence[str]
    rates: Sequence[float]
    noises: Sequence[float]
    factors: Sequence[int]
    methods: Sequence[str]
    images: Path | None
    damaged: bool
    num_points: int
    num_shown: int
    num_simulated: int
    budget: Budget
    seed: int
    batch_size: int
    devices: int


class TaskFound(NamedTuple):
    """What was found in one task.

    Attributes:
      task: the task.
      methods: by name; "exact" too, where there is a truth.
      pictures: by name of the method, `{"seen", "mean", "draws"}` of the shown images.
      sandwich: log p(x|y) from both sides on simulated images, or None.
    """

    task: Task
    methods: dict[str, Measured]
    pictures: dict[str, Mapping[str, np.ndarray]]
    sandwich: Measured | None


class Found(NamedTuple):
    """What was found in all tasks.

    Attributes:
      tasks: one by one.
      whole: log p(x) of the same images by AIS, or None.
      images: `[n, H, W]` or `[n, H, W, C]`, in [0, 1], those that are shown.
      indices: `[n]` of all images that were measured.
      binary: whether pixels are binary.
      own: whether the images are the user's.
      scored: whether there is a truth to score against.
      budget: of the samplers.
    """

    tasks: list[TaskFound]
    whole: Measured | None
    images: np.ndarray
    indices: np.ndarray
    binary: bool
    own: bool
    scored: bool
    budget: Budget


def measure(opened: Opened, asked: Asked, folder: Path, stop: StopRequest) -> Found:
    """Does every task with every method.

    Args:
      opened: the run.
      asked: what to measure.
      folder: where finished values are kept.
      stop: asked after every batch.

    Raises:
      ConfigError: a task cannot be.
      DataError: a file of the user's cannot be used.
      StoppedError: a signal came; what was finished is on the disk.
    """
    return _Measuring(opened, asked, folder, stop).all()


class _Measuring:
    """One command's work: what its parts share."""

    def __init__(
        self, opened: Opened, asked: Asked, folder: Path, stop: StopRequest
    ) -> None:
        config, program = opened.config, opened.program
        self._opened, self._asked, self._stop = opened, asked, stop
        self._folder = folder / "points"
        self._model = Model(
            model=program.likelihood_model,
            # Static pixels were drawn once: the training images are 0 and 1.
            scale=1 if config.data.binarization == "static" else config.data.scale,
            binary=config.likelihood == "bernoulli",
            damaged=asked.damaged,
        )
        self._tasks = make_tasks(
            asked.tasks,
            image_shape=opened.dataset.image_shape,
            binary=self._model.binary,
            masks=asked.masks,
            rates=asked.rates,
            noises=asked.noises,
            factors=asked.factors,
        )
        self._images = program.test
        if asked.images is not None:
            own = read_pictures(asked.images, opened.dataset.image_shape)
            self._images = (
                (own >= _WHITE).astype(np.uint8) if self._model.binary else own
            )
        self._indices = evenly_spaced(len(self._images), asked.num_points)
        self._shown = self._indices[evenly_spaced(len(self._indices), asked.num_shown)]
        if asked.images is not None:
            self._shown = self._indices
        self._identity = {
            **points_identity(config, opened.params, opened.dataset.sha256),
            "seed": asked.seed,
            "images": digests({"images": self._images}),
            "damaged": asked.damaged,
        }
        self._mesh = distributed.mesh("points", asked.devices)
        self._evaluators: dict[tuple[str, str], Any] = {}

    def all(self) -> Found:
        found = [self._task(task) for task in self._tasks]
        to_input = jax.vmap(self._opened.program.to_input)
        shape = self._opened.dataset.image_shape
        shown = np.asarray(to_input(self._images[self._shown])).reshape(-1, *shape)
        return Found(
            tasks=found,
            whole=self._whole() if "ais" in self._asked.methods else None,
            images=shown,
            indices=self._indices,
            binary=self._model.binary,
            own=self._asked.images is not None,
            scored=not self._asked.damaged,
            budget=self._asked.budget,
        )

    def _task(self, task: Task) -> TaskFound:
        print(f"{task.name}: {task.label}", flush=True)
        methods, pictures = {}, {}
        bundle = self._bundle(task)
        for name in self._asked.methods:
            method, budget = METHODS[name], self._asked.budget
            model, size = self._model, self._asked.batch_size
            make = method_estimator(model, task, method, budget, size)
            if not self._asked.damaged:
                methods[name] = self._apply(make, task, bundle, self._indices)
            shown = self._apply(make, task, bundle, self._shown, pictures=True)
            pictures[name] = shown.values
        sandwich = None
        if not self._asked.damaged:
            if self._has_truth(task):
                methods["exact"] = self._exact(task, bundle)
            if self._asked.num_simulated and "ais" in self._asked.methods:
                make = sandwich_estimator(model, task, budget, size)
                indices = np.arange(self._asked.num_simulated)
                sandwich = self._apply(make, task, bundle, indices)
        return TaskFound(task, methods, pictures, sandwich)

    def _has_truth(self, task: Task) -> bool:
        few = self._opened.config.latent_dim <= LARGEST
        return few and self._model.binary and task.kind in ("masked", "flipped")

    def _apply(
        self,
        estimator: Estimator,
        task: Task,
        bundle: Bundle,
        indices: np.ndarray,
        *,
        pictures: bool = False,
    ) -> Measured:
        """Measures, or pictures: one program makes both."""
        key = (estimator.name, task.kind)
        if key not in self._evaluators:
            self._evaluators[key] = point_evaluator(
                estimator,
                self._opened.program.to_input,
                seed=self._asked.seed,
                mesh=self._mesh,
            )
        file = f"{estimator.name}-pictures" if pictures else estimator.name
        images = self._images
        if estimator.kind.simulated:
            # The estimator makes the data: only their shape is asked for.
            images = np.zeros((len(indices), images.shape[1]), np.uint8)
        return self._evaluators[key](
            bundle,
            images,
            indices,
            keep=lambda name: (name in PICTURES) == pictures,
            parts=self._parts(task, file, estimator.settings),
            stop=self._stop,
            report=_print_progress,
        )

    def _parts(self, task: Task, name: str, settings: Mapping[str, Any]) -> Parts:
        identity = {
            **self._identity,
            **settings,
            "task": task.name,
            "arrays": digests(task.arrays),
        }
        return Parts(self._folder / task.name / f"{name}.jsonl", identity)

    def _bundle(self, task: Task) -> Bundle:
        none = jnp.zeros(self._asked.budget.num_temperatures - 2)
        bundle = Bundle(
            params=self._opened.params,
            arrays=task.arrays,
            average=self._average,
            train=self._opened.program.train,
            step_sizes=none,
            whole_step_sizes=none,
        )
        if "ais" not in self._asked.methods:
            return bundle
        budget = self._asked.budget
        parts = self._parts(task, "step_sizes", budget._asdict())
        found = parts.get("step_sizes")
        if found is None:
            x = jnp.zeros(self._images.shape[1])
            steps = find_restoring_steps(self._model, task, bundle, budget, x)
            found = np.asarray(steps).tolist()
            parts.put("step_sizes", found)
        whole = self._whole_path.step_sizes(budget.num_temperatures)
        return bundle._replace(
            step_sizes=jnp.asarray(found, jnp.float32), whole_step_sizes=whole
        )

    @cached_property
    def _average(self) -> Any:
        train = self._opened.program.train
        return average_pixels(train, self._model.scale, binary=self._model.binary)

    @cached_property
    def _whole_path(self) -> AnnealingPath:
        """From the encoder of the whole image to p(z|x)."""
        path = AnnealingPath(
            "encoder", "sigmoid", self._asked.budget.num_leapfrog_steps
        )
        identity = {**self._identity, **path._asdict()}
        return find_step_sizes(
            self._model.model,
            self._opened.params,
            jnp.zeros(self._images.shape[1]),
            path,
            Parts(self._folder / "step_sizes.jsonl", identity),
        )

    def _whole(self) -> Measured | None:
        """log p(x) of the same images, which all tasks share."""
        if self._asked.damaged:
            return None
        budget = self._asked.budget
        estimator = annealed(
            self._model.model,
            self._whole_path,
            num_temperatures=budget.num_temperatures,
            num_chains=budget.num_chains,
            batch_size=self._asked.batch_size,
        )
        evaluate = point_evaluator(
            estimator,
            self._opened.program.to_input,
            seed=self._asked.seed,
            mesh=self._mesh,
        )
        parts = Parts(
            self._folder / "whole.jsonl", {**self._identity, **estimator.settings}
        )
        return evaluate(
            self._opened.params,
            self._images,
            self._indices,
            parts=parts,
            stop=self._stop,
            report=_print_progress,
        )

    def _exact(self, task: Task, bundle: Bundle) -> Measured:
        """All images at once: what is saved is whole."""
        kind = Kind(
            name="exact",
            label=lambda _: "exact (quadrature)",
            stream=Stream.RESTORATION,
            meaning="truth",
            estimates="log_prob",
        )
        parts = self._parts(task, "exact", {"indices": self._indices.tolist()})
        found = parts.get("all")
        if found is None:
            began = time.perf_counter()
            key = stream_key(Stream.RESTORATION, self._asked.seed)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, self._indices)
            xs = jax.vmap(self._opened.program.to_input)(self._images[self._indices])
            values = exact_measures(self._model, task, bundle, keys, xs)
            seconds = time.perf_counter() - began
            found = {name: value.tolist() for name, value in values.items()}
            found["seconds"] = seconds
            parts.put("all", found)
            print(f"  exact: {duration(seconds)}", flush=True)
            stop_together(self._stop)
        values = {name: np.array(value) for name, value in found.items()}
        seconds = float(values.pop("seconds"))
        return Measured(kind, {}, self._indices, values, seconds)


def _print_progress(progress: Progress) -> None:
    done = progress.done == progress.total
    print(
        f"  {progress.name}: {progress.done:,}/{progress.total:,} images, "
        f"{progress.points_per_second:.1f} a second, "
        f"{duration(progress.seconds_left)} left   ",
        end="\n" if done else "\r",
        flush=True,
    )
