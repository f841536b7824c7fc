"""Tables as plain text: columns in line, one form for each kind of cell."""

import numpy as np
import pytest

from experiments.reports.tables import format_table


def test_format_table_aligns_numbers_right_and_words_left():
    rows = [
        ["bound", np.float32(-104.75), "±0.1", "nats"],
        ["effective sample size", 412, "< 3", "of 5000"],
        ["kl", None, "nan", "inferred"],
    ]
    assert format_table(["name", "value", "error", "unit"], rows) == (
        "name                     value  error  unit\n"
        "---------------------  -------  -----  --------\n"
        "bound                  -104.75   ±0.1  nats\n"
        "effective sample size      412    < 3  of 5000\n"
        "kl                           -    nan  inferred"
    )


def test_format_table_takes_an_empty_table_and_refuses_a_short_row():
    assert format_table(["a", "bc"], []) == "a  bc\n-  --"
    with pytest.raises(ValueError, match="2 cells, the table has 1 columns"):
        format_table(["a"], [[1, 2]])
