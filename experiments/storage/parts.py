"""The finished parts of long work, kept so that they are not done again."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.processes.distributed import is_writer
from experiments.storage.digests import json_digest
from experiments.storage.manifest import code_sha256

__all__ = ["Part", "Parts", "read_part"]


class Part(NamedTuple):
    """A line of a file of parts.

    Attributes:
      name: of the part, among those of its work.
      value: its result (JSON).
      work: the digest of what the part is of.
      code: the digest of the code that made it.
    """

    name: str
    value: Any
    work: str
    code: str

    def line(self) -> bytes:
        """The part as JSON, with its sha256."""
        fields = self._asdict()
        return json.dumps(fields | {"sha256": json_digest(fields)}).encode()


def read_part(line: bytes) -> Part | None:
    """The part in a line, or None where the line is not as it was written.

    >>> read_part(Part("first", 1.5, "K = 10", "of today").line()).value
    1.5
    >>> read_part(b'{"name": "first", "value"') is None
    True
    """
    try:
        fields = json.loads(line)
        del fields["sha256"]
        part = Part(**fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    # The bytes, not the value: 1E-05 would be read as the 1e-05 that was written.
    return part if part.line() == line else None


class Parts:
    """The finished parts of long work, kept by name in a file of JSON lines.

    Every line has its sha256, the digest of what the parts are of, and that of the
    code: a part that is damaged, or of other work or code, is not there, and is done
    again.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "parts.jsonl"
    >>> Parts(path, "K = 5000").put("first", {"log_likelihood": [-90.25]})
    >>> Parts(path, "K = 5000").get("first")
    {'log_likelihood': [-90.25]}
    >>> Parts(path, "K = 1000").get("first") is None
    True
    """

    def __init__(self, path: Path, identity: Any):
        """Reads the finished parts of the work that `identity` (JSON) tells apart.

        Parts of the same work by other code are counted in a warning.
        """
        self._path = path
        self._work, self._code = json_digest(identity), code_sha256()
        self._parts: dict[str, Any] = {}
        others = set()
        text = path.read_bytes() if path.exists() else b""
        for line in text.split(b"\n"):
            part = read_part(line)
            if part is None or part.work != self._work:
                continue
            if part.code == self._code:
                self._parts[part.name] = part.value
            else:
                others.add(part.name)
        if (left := len(others - set(self._parts))) and is_writer():
            print(
                f"warning: {left:,} finished parts in {path} were made by another "
                "version of the code, and are made again",
                file=sys.stderr,
                flush=True,
            )

    def get(self, name: str) -> Any | None:
        """The value that was put under a name, or None."""
        return self._parts.get(name)

    def put(self, name: str, value: Any) -> None:
        """Keeps a finished part, on the disk when this returns."""
        self.put_all({name: value})

    def put_all(self, values: Mapping[str, Any]) -> None:
        """Keeps finished parts by name, on the disk when this returns."""
        self._parts |= values
        if not is_writer():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            Part(name, value, self._work, self._code).line()
            for name, value in values.items()
        ]
        with self._path.open("ab") as file:
            # A line that a crash cut short must not swallow the first of these.
            file.write(b"\n" * (file.tell() > 0) + b"\n".join(lines))
            file.flush()
            os.fsync(file.fileno())
