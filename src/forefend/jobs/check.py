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
from ..findings import Finding
from ..modes import fingerprint
from ..summary import CLEAN
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
    surrogates = {c.name: c.network for c in map(finder_of(options).look_up, options.surrogates)}
    folder = Path(options.out) if options.out else (run.folder if run else Path(options.runs)) / "check"
    found = {}
    for subject in subjects:
        print(f"{subject.name}: {len(images)} images, verdicts -> {folder}", flush=True)
        found[subject.name] = masking.check(
            subject,
            images,
            parse(options.threat or threat),
            recorded=_recorded(options, run, subject, but=folder),
            surrogates=surrogates,
            folder=folder,
            seed=options.seed,
            batch_size=options.batch_size,
        )
    records.write_json(folder / "check.json", {name: [asdict(f) for f in these] for name, these in found.items()})
    passed = all(finding.passed for these in found.values() for finding in these)
    return "\n\n".join(_report(name, these) for name, these in found.items()), passed


def _recorded(options: Any, run: records.Run | None, subject: Subject, *, but: Path) -> list[str] | None:
    """The trials on record of this very subject, but the gate's own; None where no number is in question."""
    places = [Path(place) for place in options.records] or ([run.folder] if run else [])
    if not places:
        return None
    own = fingerprint(subject.network)
    paths = [path for place in places for path in sorted(place.rglob("records.jsonl")) if path.parent != but]
    ours = {record.trial for path in paths for record in records.read(path) if f":{own}:" in record.subject}
    return sorted(ours - {CLEAN})


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
