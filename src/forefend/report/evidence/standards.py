"""Section 12: which item of the page supports which requirement."""

from __future__ import annotations

from collections.abc import Mapping

from forefend.report.page.blocks import Cell, Mark, Section, Table, worst

# The sections that support a requirement. Nothing here says that a system complies.
REQUIREMENTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "EU AI Act, Annex IV(2)(g)",
        "validation and testing: data, metrics, test logs, dated and signed reports",
        ("verdict", "accuracy", "reproduce", "declaration"),
    ),
    ("EU AI Act, Art. 15(3)", "declared levels and metrics of accuracy", ("verdict", "accuracy", "classes")),
    ("EU AI Act, Art. 15(4)", "resilience to errors; fallback plans", ("untested", "declaration")),
    (
        "EU AI Act, Art. 15(5)",
        "resilience to adversarial examples and model evasion",
        ("accuracy", "transfer", "checks"),
    ),
    ("ISO/IEC 24029-2", "formal methods: a claim needs a method of proof", ("certificates",)),
    (
        "ISO/IEC DIS 24029-3",
        "statistical methods: drop of performance, reliability, adversarial robustness",
        ("accuracy", "classes", "checks"),
    ),
    ("NIST AI 100-2 E2025", "goal, knowledge, capability and stage of the attacker", ("verdict", "untested")),
)
TITLES = {
    "verdict": "verdict",
    "untested": "what was not tested",
    "accuracy": "accuracy against radius",
    "transfer": "transfer",
    "checks": "gradient-masking checks",
    "classes": "where it fails",
    "certificates": "certificates",
    "reproduce": "how to reproduce",
    "declaration": "declaration",
}


def section(grades: Mapping[str, str]) -> Section:
    """Return the table; an item has the worst grade of its sections.

    Args:
        grades: of the sections, by id.
    """
    rows: list[list[Cell]] = []
    for name, what, items in REQUIREMENTS:
        titles = ", ".join(TITLES[item] for item in items)
        held = [grades[item] for item in items if grades.get(item)]
        grade = worst(held)
        rows.append([name, what, f"supports, by: {titles}", Mark(grade, grade)])
    lead = "This page supports these requirements with measurements. Whether a system meets them is decided elsewhere."
    table = Table(["requirement", "asks for", "this page", "evidence"], rows)
    return Section("standards", "Requirements supported", [table], lead=lead)
