"""A run: its epochs, what they report, and its result."""
