"""Metrics are whole lines, and events that a reader of TensorBoard's files reads."""

import json
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments.storage.metrics import Metrics


def events(folder: Path) -> list[Event]:
    """The events of the one file in a folder: length, its sum, the event, its sum."""
    [path] = folder.iterdir()
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<Q", content)
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_events_are_those_that_were_written(tmp_path):
    metrics = Metrics(tmp_path, [{"step": 1, "bound": -91.0}])
    metrics.write(2, {"bound": -90.5}, events_only={"speed": 3.0})
    metrics.close()
    version, restart, event = events(tmp_path / "events")
    assert version.file_version == "brain.Event:2"
    assert (restart.step, restart.session_log.status) == (2, 1)
    values = {value.tag: value.simple_value for value in event.summary.value}
    assert (event.step, values) == (2, {"bound": -90.5, "speed": 3.0})


def test_a_broken_torch_is_not_imported(tmp_path):
    """tensorboardX imports torch where it is installed, and passes its errors on."""
    (tmp_path / "torch").mkdir()
    broken = "raise OSError('libtorch.so: undefined symbol')"
    (tmp_path / "torch" / "__init__.py").write_text(broken)
    code = f"""
        import sys
        from pathlib import Path
        from experiments.storage.metrics import Metrics
        metrics = Metrics(Path({str(tmp_path)!r}), [])
        metrics.write(1, {{"bound": -90.5}})
        metrics.close()
        assert "torch" not in sys.modules
    """
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert events(tmp_path / "events")[-1].summary.value[0].simple_value == -90.5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_whole_lines(small_disk):
    metrics = Metrics(small_disk, [])
    metrics.write(1, {"bound": -90.0})
    (small_disk / "filler").write_bytes(b"")
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)) == 4096:
            if os.statvfs(small_disk).f_bavail == 0:
                break

    def fill() -> None:
        for step in range(2, 200):
            metrics.write(step, {"bound": -90.0})

    with pytest.raises(OSError, match="No space left"):
        fill()
    lines = (small_disk / "metrics.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["step"] for line in lines] == [*range(1, len(lines) + 1)]


def test_metrics_start_from_the_lines_of_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "bound": -9')
    metrics = Metrics(tmp_path, [{"step": 1, "bound": -91.0}])
    metrics.write(2, {"bound": float("nan")}, events_only={"images_per_second": 1.0})
    metrics.close()
    assert (
        path.read_text() == '{"step": 1, "bound": -91.0}\n{"step": 2, "bound": NaN}\n'
    )
    assert len(list((tmp_path / "events").iterdir())) == 1
