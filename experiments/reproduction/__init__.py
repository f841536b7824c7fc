"""The paper's experiments (section 5) again: what is run, with which settings."""
