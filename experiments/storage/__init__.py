"""Everything that is written to a workdir, and read back from it."""
