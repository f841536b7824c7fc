"""The paper's third problem on a trained run: what was x, given what is seen of it."""
