"""What a person gets: pages, tables, charts and pictures."""
