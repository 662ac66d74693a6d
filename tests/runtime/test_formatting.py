from __future__ import annotations

import pytest

from forefend.runtime.formatting import duration, markdown_table, percent, text_table


def test_text_table_aligns_columns_and_strips_blanks() -> None:
    table = text_table(["name", "n"], [["a", "100"], ["longer", ""]])
    assert table.split("\n") == ["name    n", "-----------", "a       100", "longer"]


def test_text_table_without_rows_is_heading_and_rule() -> None:
    assert text_table(["a", "bc"], []) == "a  bc\n-----"


def test_text_table_with_ragged_row_raises() -> None:
    with pytest.raises(ValueError, match="zip"):
        text_table(["a", "b"], [["1"]])


def test_markdown_table_matches_known_text() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_percent_matches_committed_tables() -> None:
    assert percent(0.9814, 0.9657, 0.9899, 539) == "98.1 [96.6–99.0] n=539"
    assert percent(1, 0.5, 1) == "100.0 [50.0–100.0]"
    assert percent(0, 0, 0, 0) == "0.0 [0.0–0.0] n=0"


def test_duration_over_two_minutes_is_in_minutes_and_hours() -> None:
    assert [duration(seconds) for seconds in (3.2, 119, 121, 3600, 9000)] == [
        "3 s",
        "119 s",
        "2 min",
        "60 min",
        "2.5 h",
    ]
