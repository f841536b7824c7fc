"""Frozen dataclasses that are pytrees."""

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

import jax

__all__ = ["record", "static"]

_Class = TypeVar("_Class")


def static() -> Any:
    """A field that is no leaf: a function, or a size. It has to be hashable."""
    return field(metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(static, field))
def record(cls: type[_Class]) -> type[_Class]:
    """Makes a class a frozen dataclass and a pytree whose leaves are its fields."""
    cls = dataclass(frozen=True)(cls)
    described = fields(cls)  # type: ignore[arg-type]
    return jax.tree_util.register_dataclass(
        cls,
        data_fields=[f.name for f in described if not f.metadata.get("static")],
        meta_fields=[f.name for f in described if f.metadata.get("static")],
    )
