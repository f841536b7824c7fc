"""The paper's experiments, as entrypoints over `aevb`."""
