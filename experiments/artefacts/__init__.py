"""A trained run as `jax.export` artefacts, which run without this code."""
