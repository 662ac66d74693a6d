"""Rows of results in JSON files, and the names that tables can show. This module does not need torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.runtime.files import content_digest, read_versioned

ROUNDING = 1e-9  # by which a stored share may leave its range


def sealed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows for a JSON file, with a digest that tells an edited file."""
    return {"results": rows, "digest": content_digest(rows)}


def read_rows(path: Path, kind: type) -> list[dict[str, Any]]:
    """Read the list `results` of a JSON file, with the fields of the dataclass `kind`.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    held = read_versioned(path)
    rows = held.get("results") if isinstance(held, dict) else held  # a list before formats
    wanted = {f.name for f in fields(kind)}
    if not isinstance(rows, list) or any(not isinstance(row, dict) or set(row) != wanted for row in rows):
        raise InputError(f"{path} holds no list of results: evaluate again to write it anew.")
    edited = isinstance(held, dict) and "digest" in held and held["digest"] != sealed(rows)["digest"]
    for row in rows:
        if fault := _fault_of(row) or ("its digest differs" if edited else None):
            raise InputError(f"{path} was edited or damaged ({fault}): evaluate again to write it anew.")
    return rows


def _fault_of(row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the values of a result, None if nothing is."""
    for name, value in row.items():
        number = type(value) in (int, float) and math.isfinite(value)
        if name in ("accuracy", "low", "high", "cumulative") and not (number and -ROUNDING <= value <= 1 + ROUNDING):
            return f"{name} is {value!r}, expected a number in [0, 1]"
        if name == "n" and not (type(value) is int and value >= 1):
            return f"n is {value!r}, expected an integer of at least 1"
        if name == "radius" and not (number and value >= 0):
            return f"radius is {value!r}, expected a number of at least 0"
        if name in ("classifier", "attack", "norm", "corruption") and not is_plain_name(value):
            return f"{name} is {value!r}, expected a name of printable characters without < > |"
    if not row["low"] - ROUNDING <= row["accuracy"] <= row["high"] + ROUNDING:
        return f"accuracy is {row['accuracy']}, expected a number from low {row['low']} to high {row['high']}"
    return None


def check_names(names: Iterable[str]) -> None:
    """Refuse names of models and trials that a table cannot show.

    Raises:
        InputError: a name holds markup or characters that cannot be printed.
    """
    for name in names:
        if not is_plain_name(name):
            raise InputError(f"The name {name!r} has characters that tables cannot show: leave out < > | and controls.")


def is_plain_name(name: Any) -> bool:
    """Whether a name can be printed in a table, also in Markdown."""
    return isinstance(name, str) and name.isprintable() and not set(name) & set("<>|")
