"""Several processes and devices, and signals."""
