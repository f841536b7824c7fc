"""The sha256 of arrays and of JSON values."""

import hashlib
import json
from typing import Any

import jax
import numpy as np

__all__ = ["digests", "json_digest"]


def digests(tree: Any) -> dict[str, str]:
    """The sha256 of each leaf, over dtype, shape and bytes, by the leaf's path."""
    return {
        jax.tree_util.keystr(path): _digest(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _digest(leaf: Any) -> str:
    array = np.ascontiguousarray(leaf)
    header = f"{array.dtype.name}{np.shape(leaf)}".encode()
    return hashlib.sha256(header + array.tobytes()).hexdigest()


def json_digest(value: Any) -> str:
    """The sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
