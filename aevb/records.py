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
    described: Any = fields(cls)  # type: ignore[arg-type]
    data = [f.name for f in described if not f.metadata.get("static")]
    meta = [f.name for f in described if f.metadata.get("static")]

    def flatten(record: Any) -> tuple[tuple, tuple]:
        children = (
            (jax.tree_util.GetAttrKey(name), getattr(record, name)) for name in data
        )
        return tuple(children), tuple(getattr(record, name) for name in meta)

    def unflatten(values: tuple, children: Any) -> Any:
        named = [*zip(data, children, strict=True), *zip(meta, values, strict=True)]
        return cls(**dict(named))

    # Not by `register_dataclass`: with it a jitted function of JAX 0.10.2 now and then
    # takes one class for another of as many fields, and runs its program.
    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls
