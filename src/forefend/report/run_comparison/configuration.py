"""How the configurations of several runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import Block, Section, Table, Text


def section(runs: Mapping[str, Sources]) -> Section:
    """Return the options whose values differ."""
    values = [dict(_options(run)) for run in runs.values()]
    names = dict.fromkeys(name for one in values for name in one)
    rows = [[name, *(one.get(name, "–") for one in values)] for name in names]
    different = [row for row in rows if len(set(row[1:])) > 1]
    found: list[Block] = [Text("No option differs.")]
    if different:
        same = len(rows) - len(different)
        found = [Table(["option", *runs], different, f"{same} options are equal." if same else "")]
    return Section("configuration", "What differs in configuration", found)


def _options(run: Sources) -> Iterator[tuple[str, str]]:
    """Yield options by their path, and the versions and the time of the training."""
    yield from _flat(run.config, "")
    told = {name: value for name, value in run.trained.items() if name != "command"}
    yield from _flat(told, "")


def _flat(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif name in ("guides", "source", "classifier") and isinstance(value, list):
            yield f"{above}{name}", ", ".join(_named(one) for one in value)
        else:
            yield f"{above}{name}", str(value)


def _named(one: Any) -> str:
    return f"{one.get('name')} {str(one.get('fingerprint', ''))[:8]}".strip() if isinstance(one, dict) else str(one)
