"""What several runs did not measure alike, and therefore cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from forefend.evaluation.comparison.paired import PairedDifference
from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import COMPLETE, FAILED, PARTIAL, Block, Notice, Section, Text
from forefend.report.run_comparison.cells import ComparedCell, Measured

UNRECORDED = "images that were not recorded"


def section(runs: Mapping[str, Sources], cells: Sequence[ComparedCell]) -> Section:
    """Say which accuracies have no difference, and why."""
    first, *others = runs
    found: list[Block] = []
    for number, name in enumerate(others, start=1):
        found += [Notice(PARTIAL, sentence) for sentence in _disjoint(first, name, number, cells)]
        reasons: dict[str, list[ComparedCell]] = {}
        for cell in cells:
            one, other = cell.measured[0], cell.measured[number]
            if reason := _reason(first, name, one, other, cell.differences[number - 1]):
                reasons.setdefault(reason, []).append(cell)
        found += [Notice(PARTIAL, f"{reason}: {_such_as(own)}.") for reason, own in reasons.items()]
    grade = PARTIAL if found else COMPLETE
    faults = list(dict.fromkeys(fault for run in runs.values() for fault in run.all_faults))
    found += [Notice(FAILED, fault) for fault in faults]
    shown = found or [Text("Nothing: every cell was measured alike.")]
    return Section("limits", "What cannot be compared", shown, FAILED if faults else grade)


def _disjoint(first: str, name: str, number: int, cells: Sequence[ComparedCell]) -> Iterator[str]:
    """Yield a sentence if two runs share no images, or no threat model."""
    keys = [[cell.key for cell in cells if cell.measured[place]] for place in (0, number)]
    if not all(keys):
        yield f"{first if not keys[0] else name} was not evaluated."
        return
    ours, theirs = ({key.data or UNRECORDED for key in own} for own in keys)
    if not ours & theirs:
        yield f"{name} was evaluated on {_all(theirs)}, and {first} on {_all(ours)}: no accuracy can be compared."
        return
    ours, theirs = ({key.threat for key in own if key.norm} for own in keys)
    if not ours & theirs and (ours or theirs):
        yield (
            f"{name} was attacked in {_all(theirs) or 'no threat model'}, and {first} in {_all(ours) or 'none'}: no "
            "accuracy under attack can be compared."
        )


def _all(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _reason(
    first: str, name: str, one: Measured | None, other: Measured | None, difference: PairedDifference | str
) -> str:
    """Return why a cell of two runs has no difference, or one of fewer images; empty if it is whole."""
    if one is None or other is None:
        which = (first, name) if one else (name, first)
        return "{} was measured and {} was not".format(*which) if one or other else ""
    if difference == "other attacks":
        same = ", with other settings" if one.names == other.names else ""
        return f"{name} met {', '.join(other.names)}, and {first} {', '.join(one.names)}{same}"
    if isinstance(difference, str):
        return f"{name} and {first} have {difference}"
    if difference.n == one.result.n == other.result.n:
        return ""
    return (
        f"{name} has {other.result.n} images and {first} {one.result.n}, and the difference counts the {difference.n} "
        "in common"
    )


def _such_as(cells: Sequence[ComparedCell]) -> str:
    shown = []
    for cell in cells[:3]:
        threat = f" in {cell.key.threat}" if cell.key.norm else ""
        shown.append(f"{cell.key.model} on {cell.key.data or UNRECORDED}, {cell.attack}{threat}")
    return "; ".join(shown) + (f"; and {len(cells) - 3} more" if len(cells) > 3 else "")
