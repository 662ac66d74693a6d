"""Proofs by randomized smoothing, and accuracy on corrupted images."""

from __future__ import annotations

from collections.abc import Sequence

from forefend.evaluation.certification import certificate
from forefend.evaluation.certification.certificate import Certificate
from forefend.report.evidence import commands
from forefend.report.evidence.evaluations import counted_share, z_of
from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import COMPLETE, MISSING, PARTIAL, Block, Cell, Notice, Section, Table


def section(sources: Sources) -> Section:
    """Return certified accuracy and accuracy on corruptions, or the commands that measure them."""
    found: list[Block] = []
    for name, held in sources.certificates.items():
        found += [_certified(name, held, sources.confidence)] if held else []
    if not found:
        text = "Nothing is proved: no radius of an image is certified."
        found.append(Notice(MISSING, text, commands.forefend("certify", sources)))
    for name, results in sources.corruptions.items():
        for title, heading, rows in results.tables():
            found.append(Table(heading, rows, f"{name}, {title}. {results.caption()}."))
    if not sources.corruptions:
        text = "Accuracy on corrupted images was not measured."
        found.append(Notice(MISSING, text, commands.forefend("corruptions", sources)))
    missing = sum(isinstance(block, Notice) for block in found)
    grade = (COMPLETE, PARTIAL, MISSING)[missing]
    return Section("certificates", "Proofs and corruptions", found, grade)


def _certified(name: str, held: Sequence[Certificate], confidence: float) -> Table:
    z, rows = z_of(confidence), list[list[Cell]]()
    radii = [radius for radius in (*certificate.RADII, 1.0) if any(one.proven > radius for one in held)] or [0.0]
    for network in dict.fromkeys(one.name for one in held):
        own = [one for one in held if one.name == network]
        counts = [
            certificate.predicted(own),
            certificate.abstained(own),
            *(certificate.certified(own, r) for r in radii),
        ]
        shares = [counted_share(count, len(own), z) for count in counts]
        rows.append([network, str(len(own)), *shares])
    proved = [f"proved in L2 {radius:g}" for radius in radii]
    heading = ["smoothed classifier", "images", "clean", "abstained", *proved]
    caption = (
        f"{name}: share in %, [{100 * confidence:g} % Wilson interval over images]. A proof holds for the smoothed "
        "classifier alone, in l2, for each image with the probability that its configuration names."
    )
    return Table(heading, rows, caption)
