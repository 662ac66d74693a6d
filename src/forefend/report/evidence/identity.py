"""Section 3: which classifiers and which defense were measured, and whether they are the ones of the training."""

from __future__ import annotations

from collections.abc import Iterator

from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import (
    COMPLETE,
    FAILED,
    MISSING,
    PARTIAL,
    Block,
    Facts,
    Mark,
    Notice,
    Section,
    Table,
    worst,
)


def section(sources: Sources) -> Section:
    """Return fingerprints at training beside those at evaluation."""
    rows = list(_rows(sources))
    found: list[Block] = []
    grades = [COMPLETE if rows else MISSING]
    if sources.card.get("architecture"):
        found.append(Facts(_card(sources)))
    if rows:
        heading = ["classifier", "role", "fingerprint at training", "fingerprint at evaluation", ""]
        caption = (
            "A fingerprint is a digest of all parameters and buffers. Training and evaluation compare it, the modes "
            "and the gradient flags before and after, and write nothing if one changed."
        )
        found.append(Table(heading, [row for row, _ in rows], caption))
        grades += [grade for _, grade in rows]
    else:
        found.append(
            Notice(
                MISSING,
                "No record of this run names the classifiers by fingerprint: evaluate again, which reuses verdicts.",
            )
        )
    return Section("identity", "Identity of the models", found, worst(grades))


def fingerprints(sources: Sources) -> dict[str, str]:
    """Return the fingerprint of each classifier without a defense, by name, as evaluations recorded it."""
    found: dict[str, str] = {}
    for one in sources.evaluations:
        for title, key in dict(one.about.get("models", {})).items():
            if not title.endswith(" defended"):
                found[title] = str(key).partition(":")[2].split(":")[0]
    return found


def _rows(sources: Sources) -> Iterator[tuple[list[str | Mark], str]]:
    measured = fingerprints(sources)
    guides = {str(one["name"]): str(one["fingerprint"]) for one in sources.card.get("guides", [])}
    held = set(guides.values())
    for name, found in measured.items():
        known = guides.get(name, "")
        if known == found or found in held:
            mark, grade = Mark(COMPLETE, "unchanged"), COMPLETE
        elif known:
            mark, grade = Mark(FAILED, "another network"), FAILED
        else:
            mark, grade = Mark("", "not in training" if guides else "no training is recorded"), ""
        role = "guide" if known or found in held else "unseen" if guides else "–"
        yield [name, role, known or (found if found in held else "–"), found, mark], grade
    for name, known in guides.items():
        if name not in measured and known not in measured.values():
            yield [name, "guide", known, "–", Mark(PARTIAL, "not evaluated alone")], PARTIAL


def _card(sources: Sources) -> list[tuple[str, str]]:
    card, config = sources.card, sources.config
    defenses = dict.fromkeys(
        one.model.defense for each in sources.evaluations for one in each.models if one.model.defense
    )
    return [
        ("defense" if "guides" in card else "classifier", str(card["architecture"])),
        ("recipe", str(config.get("recipe") or card.get("recipe") or "not recorded")),
        ("training data", str(config.get("data") or card.get("data") or "not recorded")),
        ("threat model of training", sources.threat or "none"),
        ("SHA-256 of the weights", str(card.get("weights_sha256") or "not recorded")),
        ("identity in the evaluations", ", ".join(defenses) or "not recorded"),
    ]
