"""The gate: is a run's robust accuracy to be trusted?"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import masking, records
from ..checks import InputError
from ..evaluation import Subject
from ..evidence import Finding, Number
from ..modes import fingerprint
from ..summary import CLEAN
from ..threat import ThreatModel
from ..wasserstein import parse
from .options import finder_of
from .subjects import images_for, subjects_of


def run(options: Any) -> tuple[str, bool]:
    """Check everything that is defended, or bare classifiers; returns the report, and whether all passed.

    Raises:
        InputError: options that do not fit together, or subjects or images that cannot be used.
    """
    run = records.Run(Path(options.run)) if options.run else None
    images = images_for(options, run)
    subjects, threat = subjects_of(options, run)
    subjects = [subject for subject in subjects if subject.defended] or subjects
    if not subjects:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    if not (options.threat or threat):
        raise InputError("The run was trained under no threat model: say which to check with --threat, as Linf:8/255.")
    model = parse(options.threat or threat)
    folder = Path(options.out) if options.out else (run.folder if run else Path(options.runs)) / "check"
    numbers = [_number(options, run, subject, model, but=folder) for subject in subjects]
    surrogates = {c.name: c.network for c in map(finder_of(options).look_up, options.surrogates)}
    found = {}
    for subject, number in zip(subjects, numbers, strict=True):
        print(f"{subject.name}: {len(images)} images, verdicts -> {folder}", flush=True)
        found[subject.name] = masking.check(
            subject,
            images,
            model,
            number=number,
            surrogates=surrogates,
            folder=folder,
            seed=options.seed,
            batch_size=options.batch_size,
        )
    records.write_json(folder / "check.json", {name: [asdict(f) for f in these] for name, these in found.items()})
    passed = all(finding.passed for these in found.values() for finding in these)
    return "\n\n".join(_report(name, these) for name, these in found.items()), passed


def _number(
    options: Any, run: records.Run | None, subject: Subject, threat: ThreatModel, *, but: Path
) -> Number | None:
    """What is on record of this very subject in this threat model; None where no number is in question.

    A run that was never evaluated has no number. Whoever names records says that there is one.

    Raises:
        InputError: records were named, and there are none.
    """
    named = [Path(place) for place in options.records]
    places = named or ([run.folder] if run else [])
    paths = {path for place in places for path in place.rglob("records.jsonl")}
    if named and not paths:
        raise InputError(f"{' '.join(options.records)}: no records.jsonl lies there; name the folder of an evaluation.")
    gates = {but, *(path.parent for path in paths if (path.parent / "check.json").exists())}
    gates |= {run.folder / "check"} if run else set()
    own = f":{fingerprint(subject.network)}:"
    found = [record for path in sorted(paths) if path.parent not in gates for record in records.read(path)]
    ours = [r for r in found if own in r.subject and (f" in {threat} [" in r.trial or r.trial == CLEAN)]
    attacks = [record for record in ours if record.trial != CLEAN]
    judged = frozenset(i for record in ours for i in record.index) if attacks else frozenset()
    lost = {i for record in ours for i, gone in zip(record.index, record.lost, strict=True) if gone}
    return Number(sorted({r.trial for r in attacks}), judged, judged - lost) if attacks or named else None


def _report(name: str, found: Sequence[Finding]) -> str:
    """The findings as one reads them, what failed first."""
    failed = sum(not finding.passed for finding in found)
    head = f"{name}: {'passed' if not failed else f'{failed} of {len(found)} checks FAILED'}"
    lines = [line for finding in sorted(found, key=lambda f: f.passed) for line in _lines(finding)]
    return "\n".join([head, *lines])


def _lines(finding: Finding) -> list[str]:
    mark = "ok  " if finding.passed else "FAIL"
    said = [f"measured: {finding.measured}", f"must be: {finding.bound}"]
    said += [] if finding.passed else [f"what to do: {finding.advice}"]
    return [f"  {mark} {finding.check}"] + [
        textwrap.fill(text, 116, initial_indent=" " * 7, subsequent_indent=" " * 9) for text in said
    ]
