"""The evidence page of a run, in the order in which an auditor reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from forefend.report.evidence import (
    accuracy,
    beyond,
    by_class,
    cost,
    declaration,
    identity,
    masking,
    published,
    reproduction,
    standards,
    transferred,
    untested,
    verdict,
)
from forefend.report.evidence.headline import verdict_of
from forefend.report.evidence.sources import Sources, read_run
from forefend.report.page.blocks import Notice, Page, Section, Share, to_json
from forefend.runtime.files import FORMAT
from forefend.runtime.formatting import counted

SECTIONS = (
    verdict,
    untested,
    identity,
    accuracy,
    transferred,
    masking,
    by_class,
    beyond,
    published,
    cost,
    reproduction,
)


def evidence(run: str | Path, *, confidence: float = 0.95, about: str | Path | None = None) -> Page:
    """Make the evidence page of a run from its records and summaries; nothing is run, and no network is loaded.

    Args:
        run: the folder of a run, or of one evaluation.
        confidence: of all intervals, in (0, 1).
        about: a YAML file with the fields of `declaration.FIELDS`; what it leaves out is shown as missing.

    Returns:
        A page for `to_html`, `to_markdown` and `to_json`.

    Raises:
        InputError: the folder holds nothing of forefend, or the YAML file cannot be used.
    """
    given = declaration.read(about) if about else {}
    sources = read_run(run, confidence)
    found = [part.section(sources) for part in SECTIONS]
    found.append(declaration.section(given))
    found.append(standards.section({section.id: section.grade for section in found}))
    footer = (
        "Made by forefend from records and summaries alone: nothing was run again. The grade of a page is the worst of "
        "its sections."
    )
    return Page(f"Evidence: {sources.name}", _subtitle(sources), found, footer, _data(sources, found))


def _subtitle(sources: Sources) -> str:
    recipe = sources.config.get("recipe")
    trained = f"recipe {recipe} on {sources.config.get('data')}" if recipe else "no training is recorded"
    count = len(sources.evaluations)
    return f"{trained}; {counted(count, 'evaluation')}; intervals are Wilson's at {100 * sources.confidence:g} %"


def _data(sources: Sources, sections: Iterable[Section]) -> Mapping[str, Any]:
    """Return the numbers of the page for programs."""
    found = verdict_of(sources)
    sections = list(sections)
    missing = [
        {"section": section.id, "what": block.text, "command": block.command}
        for section in sections
        for block in section.blocks
        if isinstance(block, Notice) and block.grade == "missing"
    ]
    return {
        "format": FORMAT,
        "run": str(sources.run),
        "confidence": sources.confidence,
        "faults": sources.all_faults,
        "grades": {section.id: section.grade for section in sections if section.grade},
        "headlines": [headline(found.threat, one) for one in found.headlines] if found else [],
        "checks": [report.to_json() for report in sources.checks],
        "not_tested": [{"what": what, "why": why, "command": command} for what, why, command in untested.gaps(sources)],
        "missing": missing,
        "digests": reproduction.digests(sources),
    }


def headline(threat: str, one: Any) -> dict[str, Any]:
    """Return the accuracies of a classifier as JSON values."""
    shares = {name: to_json(value) if isinstance(value, Share) else value for name, value in vars(one).items()}
    return {"threat": threat, **shares}
