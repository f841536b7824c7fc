"""Checkpoints that are verified: Orbax, with sha256 sums of every leaf and file.

Orbax's `CheckpointManager` writes a step whole or not at all, but does not notice
flipped bits. Beside the state a step holds a record: the sha256 of every leaf and what
the run had written until then. `STEP.sha256` beside it has the sums of its files, in
the format of `sha256sum -c`: a damaged file is found before anything parses it.

checkpoints/STEP/           Orbax: `state` (the leaves by number) and `record` (JSON)
checkpoints/STEP.sha256     the sums of its files
damaged/STEP                a step that a run could not use, moved out of its way
"""

import hashlib
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments.errors import CheckpointError, WorkdirError
from experiments.processes.distributed import is_writer
from experiments.storage.atomic import write_atomically
from experiments.storage.digests import digests, json_digest

__all__ = ["Checkpoints", "Restored"]


class Restored(NamedTuple):
    """A verified checkpoint.

    Attributes:
      step: what it was saved under.
      state: the tree of arrays.
      record: what was saved beside it.
    """

    step: int
    state: Any
    record: dict[str, Any]


class Checkpoints:
    """Saves and restores a tree of arrays by step, verified.

    Orbax is imported when it is first needed: a refused command does not wait for it.
    """

    def __init__(self, workdir: Path, *, keep: int = 3):
        """The checkpoints of a workdir, of which the last `keep` are kept."""
        self._workdir = workdir
        self._folder = workdir / "checkpoints"
        self._keep = keep
        self._kept: Collection[int] = ()
        self._manager: Any = None

    def steps(self) -> list[int]:
        """The steps there are, good or not, in order."""
        if not self._folder.is_dir():
            return []
        names = (path.name for path in self._folder.iterdir() if path.is_dir())
        return sorted(int(name) for name in names if re.fullmatch(r"\d+", name))

    def unfinished(self) -> list[Path]:
        """What a process left that died while it saved."""
        return sorted(self._folder.glob("*.orbax-checkpoint-tmp*"))

    def save(
        self,
        step: int,
        state: Any,
        record: Mapping[str, Any],
        *,
        kept: Collection[int] = (),
    ) -> None:
        """Saves a state under a step, and deletes what is not kept.

        Args:
          step: not saved yet, and after every step that is.
          state: a tree of arrays.
          record: JSON, to be restored with it.
          kept: steps to keep beside the last ones.

        Raises:
          WorkdirError: it could not be written; the checkpoints before it are whole.
        """
        state = jax.device_get(state)
        leaves = jax.tree.leaves(state)
        record = {
            **record,
            "step": step,
            "leaves": [
                {
                    "name": name,
                    "sha256": digest,
                    "dtype": leaf.dtype.name,
                    "shape": leaf.shape,
                }
                for leaf, (name, digest) in zip(
                    leaves, digests(state).items(), strict=True
                )
            ],
        }
        record["sha256"] = json_digest(record)
        self._kept = kept
        try:
            with _orbax() as ocp:
                self._open_manager(ocp).save(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(
                            {str(i): leaf for i, leaf in enumerate(leaves) if leaf.size}
                        ),
                        record=ocp.args.JsonSave(record),
                    ),
                    force=True,
                )
                self._manager.wait_until_finished()
            if is_writer():
                sums = self._file_sums(step).encode()
                write_atomically(self._sums_path(step), sums)
                for path in self._folder.glob("*.sha256"):
                    if not path.with_suffix("").is_dir():
                        path.unlink()
        except Exception as error:  # Orbax and TensorStore raise what they like
            for path in self.unfinished():
                shutil.rmtree(path, ignore_errors=True)
            raise WorkdirError(
                f"the checkpoint of step {step} cannot be written in {self._folder} "
                f"({_cause(error)}): those before it are whole; make room and run the "
                "same command again"
            ) from error

    def restore(self, like: Any) -> Restored | None:
        """The last usable checkpoint, or None where nothing has been saved.

        Newer ones that are damaged or unfinished are named in a warning and moved to
        `damaged/`. For the one process that writes.

        Args:
          like: a tree with the structure, shapes and dtypes that are expected.

        Raises:
          CheckpointError: there are checkpoints, and none is usable. Nothing was
            changed.
        """
        found, damage = self._last_usable(like)
        if is_writer():
            where = f"step {found.step}" if found else "the beginning"
            for path in self.unfinished():
                name = path.name.split(".")[0]
                _warn(f"checkpoint {name} was not finished: back to {where}")
                shutil.rmtree(path)
            for step, reason in damage.items():
                _warn(f"checkpoint {step} is damaged: back to {where}")
                _warn(f"{reason}; moved to {self._set_aside(step)}")
        return found

    def read(self, like: Any, step: int | None = None) -> Restored:
        """The checkpoint of a step, or the last usable one; changes nothing.

        Raises:
          CheckpointError: it is not there, damaged, or of another program.
        """
        if step is None:
            found, _ = self._last_usable(like)
            if found is None:
                raise CheckpointError(f"{self._folder} has no checkpoint")
            return found
        if step not in self.steps():
            raise CheckpointError(
                f"{self._folder} has no checkpoint of step {step}, expected one of "
                f"{self.steps()}"
            )
        return _fit(self.verify(step), like)

    def verify(self, step: int) -> Restored:
        """Reads a step's leaves, as a list, against all its sums.

        Raises:
          CheckpointError: with what is wrong.
        """
        sums = self._sums_path(step)
        if sums.exists():  # not yet, if the process died between Orbax and this file
            stored = sums.read_bytes().split(b"\n")
            found = self._file_sums(step).encode().split(b"\n")
            if stored != found:
                changed = {repr(line[66:])[2:-1] for line in {*stored} ^ {*found}}
                names = ", ".join(sorted(changed - {""})) or sums.name
                raise CheckpointError(f"{names}: not as written")
        try:
            leaves, record = self._read(step)
        except Exception as error:  # parsers of three libraries raise what they like
            cause = _cause(error)
            raise CheckpointError(f"step {step} cannot be read ({cause})") from error
        stored_digests = [leaf["sha256"] for leaf in record["leaves"]]
        for i, digest in enumerate(digests(leaves).values()):
            if digest != stored_digests[i]:
                name = record["leaves"][i]["name"]
                raise CheckpointError(f"{name} of step {step} is not as it was saved")
        return Restored(step, leaves, record)

    def close(self) -> None:
        """Releases the manager's threads."""
        if self._manager is not None:
            self._manager.close()

    def _last_usable(self, like: Any) -> tuple[Restored | None, dict[int, str]]:
        damage: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                return _fit(self.verify(step), like), damage
            except CheckpointError as error:
                damage[step] = str(error)
        if damage:
            raise CheckpointError(
                f"no usable checkpoint in {self._folder}: "
                + "; ".join(f"step {step}: {why}" for step, why in damage.items())
                + ". Nothing was changed: put back a copy of it, or start again in "
                "another --workdir"
            )
        return None, damage

    def _read(self, step: int) -> tuple[list[np.ndarray], dict[str, Any]]:
        with (
            _orbax() as ocp,
            ocp.CheckpointManager(
                self._folder.absolute(),
                options=_alone(ocp, ocp.CheckpointManagerOptions(read_only=True)),
            ) as reader,
        ):
            record = reader.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )["record"]
            sha256 = record.pop("sha256")
            if sha256 != json_digest(record) or record["step"] != step:
                raise ValueError("its record is not as it was saved")
            like = [
                np.zeros(leaf["shape"], jnp.dtype(leaf["dtype"]))
                for leaf in record["leaves"]
            ]
            state = reader.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(
                        {str(i): leaf for i, leaf in enumerate(like) if leaf.size}
                    )
                ),
            )["state"]
        return [state.get(str(i), leaf) for i, leaf in enumerate(like)], record

    def _open_manager(self, ocp: Any) -> Any:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self, enable_async_checkpointing=False
            )
            if jax.process_count() > 1:
                _alone(ocp, options)
                self._folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self._folder.absolute(), options=options
            )
        return self._manager

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        """Orbax's `PreservationPolicy`: the last `keep`, and those named beside."""
        del context
        first_kept = len(checkpoints) - self._keep
        return [
            i >= first_kept or checkpoint.step in self._kept
            for i, checkpoint in enumerate(checkpoints)
        ]

    def _sums_path(self, step: int) -> Path:
        return self._folder / f"{step}.sha256"

    def _file_sums(self, step: int) -> str:
        paths = (self._folder / str(step)).rglob("*")
        files = (path.relative_to(self._folder) for path in paths if path.is_file())
        lines = []
        for name in sorted(file.as_posix() for file in files):
            content = (self._folder / name).read_bytes()
            lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        return "".join(lines)

    def _set_aside(self, step: int) -> Path:
        folder = self._workdir / "damaged"
        folder.mkdir(exist_ok=True)
        target, count = folder / str(step), 1
        while target.exists():
            count += 1
            target = folder / f"{step}-{count}"
        (self._folder / str(step)).rename(target)
        if self._sums_path(step).exists():
            self._sums_path(step).rename(target.with_name(target.name + ".sha256"))
        return target


@contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax, silent: it narrates every step, and prints the trace of what it raises."""
    import orbax.checkpoint as ocp

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield ocp
    finally:
        logging.set_verbosity(verbosity)


def _alone(ocp: Any, options: Any) -> Any:
    """Of a job of several processes, this one saves and reads, and waits for nobody."""
    if jax.process_count() > 1:
        index = jax.process_index()
        options.multiprocessing_options = ocp.options.MultiprocessingOptions(
            primary_host=index,
            active_processes={index},
            barrier_sync_key_prefix="checkpoints",
        )
        options.create = False
    return options


def _fit(restored: Restored, like: Any) -> Restored:
    """The leaves in the tree of `like`, if they are of it."""
    expected = jax.tree_util.tree_leaves_with_path(like)
    names = [
        f"{jax.tree_util.keystr(path)} {jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"
        for path, leaf in expected
    ]
    found = [
        f"{leaf['name']} {leaf['dtype']}{list(leaf['shape'])}"
        for leaf in restored.record["leaves"]
    ]
    if names != found:
        other = next(
            (pair for pair in zip(found, names, strict=False) if pair[0] != pair[1]),
            (f"{len(found)} leaves", f"{len(names)}"),
        )
        raise CheckpointError(
            f"step {restored.step} is of another program: it has {other[0]}, expected "
            f"{other[1]}"
        )
    state = jax.tree.unflatten(
        jax.tree.structure(like), [jnp.array(leaf) for leaf in restored.state]
    )
    return restored._replace(state=state)


def _cause(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    # TensorStore says much before the operating system's reason.
    found = re.search(r"No space left on device|Read-only file system", text)
    return found[0] if found else text[:300]


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
