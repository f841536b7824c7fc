"""Copies of a run in Weights and Biases or MLflow, made by a process beside it."""
