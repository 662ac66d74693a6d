"""The gate: is a run's robust accuracy to be trusted?"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import masking, records
from ..checks import InputError
from ..cost import cost_of
from ..data import Images
from ..data.images import fingerprints
from ..docket import key_of
from ..evidence import Finding, Number
from ..modes import frozen
from ..processes import processes
from ..records import Record
from ..subject import Subject
from ..suites import Suite
from ..summary import CLEAN
from ..threads import choose_threads
from ..threat import ThreatModel
from ..wasserstein import parse
from .subjects import images_for, placed, subjects_of, surrogates_of


def run(options: Any) -> tuple[str, bool]:
    """Check everything that is defended, or bare classifiers; returns the report, and whether all passed.

    Raises:
        InputError: options that do not fit together, or subjects or images that cannot be used.
    """
    choose_threads()
    run = records.Run(Path(options.run)) if options.run else None
    images = images_for(options, run)
    subjects, threat = _asked(options, run)
    folder = _folder(options, run)
    on_record = _on_record(options, run, but=folder)
    numbers = [_number(on_record, subject, images, threat) for subject in subjects]
    surrogates = surrogates_of(options)
    placed([subject.network for subject in subjects] + list(surrogates.values()), options.device)
    for subject in subjects:  # all are looked at before anything is written
        masking.refuse_unfit(subject, images, threat, batch_size=options.batch_size)
    speaks = not processes().rank
    if speaks and not (folder / "check.json").exists():
        records.write_json(folder / "check.json", {})  # from now on its records are a gate's, even if it is cut short
    found = {}
    for subject, number in zip(subjects, numbers, strict=True):
        if speaks:
            print(f"{subject.name}: {len(images)} images, verdicts -> {folder}", flush=True)
        found[subject.name] = masking.check(
            subject,
            images,
            threat,
            number=number if number.trials or options.records else None,
            surrogates=surrogates,
            folder=folder,
            seed=options.seed,
            batch_size=options.batch_size,
            tell=partial(_tell, subject, images) if speaks else None,
        )
    passed = all(finding.passed for these in found.values() for finding in these)
    if not speaks:
        return "", passed
    records.write_json(folder / "check.json", {name: [asdict(f) for f in these] for name, these in found.items()})
    return "\n\n".join(_report(name, these) for name, these in found.items()), passed


def _tell(subject: Subject, images: Images, suite: Suite, batch_size: int) -> None:
    """Say what the work costs, before it starts."""
    print(cost_of([subject], images, suite, batch_size).among(processes().count), flush=True)


def _asked(options: Any, run: records.Run | None) -> tuple[list[Subject], ThreatModel]:
    """Whom to check, and in which threat model."""
    subjects, threat = subjects_of(options, run)
    subjects = [subject for subject in subjects if subject.defended] or subjects
    if not subjects:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    if not (options.threat or threat):
        raise InputError("The run was trained under no threat model: say which to check with --threat, as Linf:8/255.")
    return subjects, parse(options.threat or threat)


def _folder(options: Any, run: records.Run | None) -> Path:
    """Where verdicts and findings go.

    Raises:
        InputError: an evaluation's records lie there; the check would take them for its own, and never count them.
    """
    usual = (run.folder if run else Path(options.runs)) / "check"
    folder = Path(options.out) if options.out else usual
    holds_records = any(folder.glob("records*.jsonl"))  # asked first: another process may be writing both
    if holds_records and not (folder / "check.json").exists() and folder.resolve() != usual.resolve():
        raise InputError(
            f"{folder} holds an evaluation's records, which would be taken for the check's own: choose an empty or new "
            "folder with --out."
        )
    return folder


def _on_record(options: Any, run: records.Run | None, *, but: Path) -> list[Record]:
    """The records that may hold the number in question: those of the places named, or the run's; no gate's own.

    Raises:
        InputError: records were named, and there are none.
    """
    named = [Path(place) for place in options.records]
    places = named or ([run.folder] if run else [])
    paths = sorted({path.resolve() for place in places for path in place.rglob("records.jsonl")})
    if named and not paths:
        raise InputError(f"{' '.join(options.records)}: no records.jsonl lies there; name the folder of an evaluation.")
    gates = {but.resolve()} | ({(run.folder / "check").resolve()} if run else set())
    gates |= {path.parent for path in paths if (path.parent / "check.json").exists()}
    return [record for path in paths if path.parent not in gates for record in records.read(path)]


def _number(on_record: Sequence[Record], subject: Subject, images: Images, threat: ThreatModel) -> Number:
    """What is on record of this very subject, on this set of images, in this threat model.

    An image that was only ever classified stands up to nothing; one that was misclassified needs no attack.
    """
    key = key_of(frozen(subject.network), images)
    ours = [r for r in on_record if r.subject == key and (f" in {threat} [" in r.trial or r.trial == CLEAN)]
    digests = _digests(images) if ours else {}
    verdicts = [(record.trial, _still_true(record, digests)) for record in ours]
    attacked = frozenset(i for trial, those in verdicts if trial != CLEAN for i in those)
    lost = frozenset(i for _, those in verdicts for i, gone in those.items() if gone)
    trials = sorted({trial for trial, those in verdicts if trial != CLEAN and those})
    return Number(trials, attacked | lost, attacked - lost) if trials else Number(())


def _digests(images: Images) -> dict[int, str]:
    """Each image's digest, by dataset index."""
    batches = (images.batch(rows) for rows in torch.arange(len(images)).split(256))
    return {i: digest for x, y, index in batches for i, digest in zip(index.tolist(), fingerprints(x, y), strict=True)}


def _still_true(record: Record, digests: Mapping[int, str]) -> dict[int, bool]:
    """A record's verdicts, without those on images that are no longer what they were."""
    held = record.images or [digests.get(i, "") for i in record.index]  # a record without digests is taken at its word
    verdicts = zip(record.index, record.lost, held, strict=False)
    return {i: gone for i, gone, digest in verdicts if digests.get(i, digest) == digest}


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
