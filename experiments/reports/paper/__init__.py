"""The page about the paper's figures: our curves over its digitised ones."""
