"""Section 10: commands, seeds, versions, machine and digests with which the numbers can be made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import COMPLETE, MISSING, PARTIAL, Block, Cell, Commands, Notice, Section, Table, Text

FILES = ("config.json", "defense.json", "weights.safetensors", "train.jsonl", "latency.json", "check/check.json")
IN_EVALUATIONS = ("evaluation.json", "records.jsonl", "summary.json")


def section(sources: Sources) -> Section:
    """Return how each part of the run was made, and the SHA-256 of its files."""
    told = [("training", sources.trained, sources.config.get("seed"))]
    told += [(one.folder.name, one.told, one.about.get("seed")) for one in sources.evaluations]
    known = [(name, about, seed) for name, about, seed in told if about]
    found: list[Block] = []
    if known:
        commands = [str(about["command"]) for _, about, _ in known if about.get("command")]
        found += [Text("The commands, in order:"), Commands(list(dict.fromkeys(commands)))]
        rows = [
            [name, str(seed), _day(about), _versions(about), str(about.get("machine", "–"))]
            for name, about, seed in known
        ]
        found.append(Table(["step", "seed", "finished", "versions", "machine"], rows, "Times are UTC."))
    else:
        found.append(Notice(MISSING, "No file of this run says with which command, seed and versions it was made."))
    if sources.config.get("settings"):
        found += [Text("Hyper-parameters of the training:"), Commands([_settings(sources.config["settings"])])]
    rows = [[name, digest] for name, digest in digests(sources).items()]
    caption = "SHA-256 of the files that this page is made from. Each line of records carries a digest of its own."
    found.append(Table(["file", "SHA-256"], rows, caption))
    trials = list(dict.fromkeys(trial for one in sources.evaluations for trial in one.trials))
    if trials:
        found += [Text("The attacks, as the records identify them:"), Commands(trials[:40])]
    unknown = [one for one in sources.evaluations if not one.told]
    return Section("reproduce", "How to reproduce", found, MISSING if not known else PARTIAL if unknown else COMPLETE)


def digests(sources: Sources) -> dict[str, str]:
    """Return the SHA-256 of the files that the page is made from, by path in the run."""
    return dict(_digests(sources))


def _digests(sources: Sources) -> Iterator[tuple[str, str]]:
    paths = [sources.run / name for name in FILES]
    paths += [one.folder / name for one in sources.evaluations for name in IN_EVALUATIONS]
    paths += [
        path
        for pattern in ("transfer/*/transfer.json", "certificates/*/certificates.jsonl")
        for path in sorted(sources.run.glob(pattern))
    ]
    for path in dict.fromkeys(paths):
        if path.is_file():
            with path.open("rb") as file:
                yield _inside(path, sources.run), hashlib.file_digest(file, "sha256").hexdigest()


def _inside(path: Path, run: Path) -> str:
    return path.relative_to(run).as_posix()


def _day(about: Mapping[str, Any]) -> str:
    return str(about.get("time", "–")).replace("T", " ").rstrip("Z")


def _versions(about: Mapping[str, Any]) -> Cell:
    held = about.get("versions")
    names = [f"{name} {version}" for name, version in held.items()] if isinstance(held, dict) else []
    return ", ".join([*names, f"Python {about.get('python', '?')}"])


def _settings(settings: Any) -> str:
    return json.dumps(settings, ensure_ascii=False, indent=1)
