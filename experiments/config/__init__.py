"""The configuration of a run: its fields, and their checks (`validation`)."""

from experiments.config.fields import (
    ACTIVATIONS,
    GENERIC_POSTERIORS,
    INITIALIZERS,
    POSTERIORS,
    base,
    flatten,
    get_field,
    optimizer_arguments,
    parse_argument,
)
from experiments.config.validation import validate

__all__ = [
    "ACTIVATIONS",
    "GENERIC_POSTERIORS",
    "INITIALIZERS",
    "POSTERIORS",
    "base",
    "flatten",
    "get_field",
    "optimizer_arguments",
    "parse_argument",
    "validate",
]
