"""One HTML page on which a trained run is explored: its networks run in the browser."""
