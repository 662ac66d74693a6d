"""Section 8: published figures of the same data set, threat model and architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from forefend.report.evidence.headline import Verdict, verdict_of
from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import Cell, Link, Section, Table, Text


def section(sources: Sources) -> Section:
    """Return the figures of the same cell beside those of the run; a table only where there are some."""
    verdict, title = verdict_of(sources), "Beside published figures"
    same = figures_of(sources, verdict) if verdict else []
    if not verdict or not same:
        cell = (
            f"{_data(verdict)}, {verdict.threat}, {', '.join(architectures(sources, verdict).values())}"
            if verdict
            else "this run"
        )
        return Section("published", title, [Text(f"This version knows no published figure of the same cell: {cell}.")])
    rows: list[list[Cell]] = []
    for one in verdict.headlines:
        if architectures(sources, verdict)[one.classifier] in {figure["architecture"] for figure in same}:
            attacks = ", ".join(verdict.attacks)
            rows.append([f"{one.classifier}, this run", attacks, one.clean, one.robust, f"n={one.robust.n}"])
    for figure in same:
        source = Link(figure["source"], figure["address"]) if figure["address"] else figure["source"]
        rows.append([figure["what"], figure["attack"], f"{figure['clean']:.1f}", f"{figure['robust']:.1f}", source])
    caption = (
        f"Accuracy in %, {_data(verdict)}, {verdict.threat}, {same[0]['architecture']}. Attacks and images differ from "
        "row to row: a weaker attack gives a higher number."
    )
    return Section("published", title, [Table(["", "attack", "clean", "robust", "source"], rows, caption)])


def figures_of(sources: Sources, verdict: Verdict) -> Sequence[Mapping[str, Any]]:
    """Return the published figures of the data set, threat model and an architecture of a verdict."""
    text = resources.files("forefend.report.evidence").joinpath("published.json").read_text(encoding="utf-8")
    own = set(architectures(sources, verdict).values())
    wanted = _data(verdict), verdict.threat.replace(" ", ":")
    return [
        figure
        for figure in json.loads(text)["figures"]
        if (figure["data"], figure["threat"]) == wanted and figure["architecture"] in own
    ]


def architectures(sources: Sources, verdict: Verdict) -> dict[str, str]:
    """Return the architecture of each classifier of a verdict: as its card says, else its name."""
    names = [one.classifier for one in verdict.headlines]
    return {name: str(sources.classifiers.get(name, {}).get("architecture", name)) for name in names}


def _data(verdict: Verdict) -> str:
    return verdict.evaluation.data.partition("/")[0]
