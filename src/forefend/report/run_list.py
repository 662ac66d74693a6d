"""The runs in a folder: what each is, how far it is, and its best numbers. This module does not need torch.

Only small JSON files are read, no records; and weights only where an evaluation or a check names the defense that it
measured, which must be the run's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.evaluation.results import Result, column_title
from forefend.report.best_numbers import Best, best_numbers
from forefend.report.own_defense import OwnDefense, defenses_of
from forefend.runtime.files import check_regular, complete_lines, read_versioned
from forefend.runtime.folders import is_held
from forefend.runtime.formatting import percent, printable, text_table

CARDS = ("defense.json", "classifier.json")  # written at the end of a training
TRACES = (*CARDS, "config.json", "train.jsonl", "checkpoint.safetensors", "weights.safetensors")
LARGEST = 20_000_000  # bytes of a file that is read
DEPTH = 4  # of folders that are searched for runs
HEADING = ["run", "recipe", "data", "threat", "state", "clean", "robust", "under", "n", "seed", "size", "started"]
CAPTION = (
    "accuracy in %, [95% Wilson interval], of the guide that is the least robust behind the defense, at the radius of "
    "the training or the nearest; of the evaluation with the most images"
)


@dataclass(frozen=True)
class ListedRun:
    """One run.

    Args:
        name: its folder, relative to the folder that is listed.
        folder: its folder.
        state: `training`, `interrupted`, `finished`, `evaluated`, `checked` or `damaged`.
        recipe: the training method; empty for evaluations of bare classifiers.
        data: the data set of the training.
        threat: the threat model of the training.
        seed: of the training.
        epoch: number of completed epochs.
        epochs: number of epochs of the training.
        started: when its configuration was written, in UTC.
        size: bytes on disk.
        evaluations: number of evaluations; those of another defense than the run's do not count.
        checks: number of models that were checked for gradient masking, likewise.
        checks_failed: number of those with a check that failed.
        best: its numbers; None without an evaluation.
        problem: what is damaged, or of another defense; empty if nothing is.
        note: why it is not known that the numbers are of the run's defense; empty if it is.
    """

    name: str
    folder: Path
    state: str
    recipe: str = ""
    data: str = ""
    threat: str = ""
    seed: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    started: str = ""
    size: int = 0
    evaluations: int = 0
    checks: int = 0
    checks_failed: int = 0
    best: Best | None = None
    problem: str = ""
    note: str = ""


@dataclass
class _Found:
    """What is known of a run, until something in it cannot be read."""

    own: OwnDefense
    known: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def list_runs(folder: Path) -> list[ListedRun]:
    """List the runs in a folder and below it, newest first; a run that is damaged says so.

    Args:
        folder: the folder of runs, or one run.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: name the folder of your runs.")
    runs = [_listed(path, folder) for path in _run_folders(folder, DEPTH)]
    return sorted(runs, key=lambda run: (run.started, run.name), reverse=True)


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield each folder of a run or of evaluations; folders inside a run belong to it."""
    try:
        names = set(os.listdir(folder))
    except OSError:  # the folder is listed with the reason
        names = {*TRACES}
    if names & {*TRACES, "summary.json", "check.json"}:
        yield folder
    elif depth:
        for name in sorted(names):
            path = folder / name
            if path.is_dir() and not name.startswith(".") and not _leads_back(path):
                yield from _run_folders(path, depth - 1)


def _leads_back(path: Path) -> bool:
    """Whether a link names a folder that it lies in, whose runs would be listed again."""
    place = path.parent.resolve()
    return path.is_symlink() and path.resolve() in (place, *place.parents)


def _listed(folder: Path, root: Path) -> ListedRun:
    name = folder.name if folder == root else folder.relative_to(root).as_posix()
    found = _Found(OwnDefense(folder))
    parts = {"config.json": _configuration, "train.jsonl": _progress, "a card": _result, "a summary": _numbers}
    for what, part in (parts | {"check.json": _checks, "a file": _size}).items():
        try:
            part(folder, found)
        except InputError as error:
            found.problems.append(_inside(folder, str(error)))
        except OSError as error:
            found.problems.append(f"{what} cannot be read ({error.strerror})")
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            found.problems.append(f"{what} holds something else than forefend writes there")
    state = "damaged" if found.problems else _state(folder, found.known)
    return ListedRun(name, folder, state, **found.known, problem="; ".join(dict.fromkeys(found.problems)))


def _inside(folder: Path, sentence: str) -> str:
    """Return a sentence with its paths relative to the folder."""
    return sentence.replace(f"{folder}{os.sep}", "")


def _state(folder: Path, known: Mapping[str, Any]) -> str:
    ended = any((folder / card).exists() for card in CARDS) or not known.get("recipe")
    if not ended and is_held(folder):
        return "training"
    if known.get("checks"):
        return "checked"
    if known.get("evaluations"):
        return "evaluated"
    return "finished" if ended else "interrupted"


def _configuration(folder: Path, found: _Found) -> None:
    path = folder / "config.json"
    if not path.exists():
        if any((folder / name).exists() for name in TRACES):
            found.problems.append("config.json is missing")
        return
    held = _small_json(path)
    config, about = held["config"], held.get("about", {})
    settings = config.get("settings", {})
    found.known |= {"recipe": str(config["recipe"]), "data": str(config.get("data", ""))}
    found.known |= {"threat": str(settings.get("threat", "")), "seed": _integer(config.get("seed"))}
    found.known |= {"epochs": _integer(settings.get("epochs")), "started": str(about.get("time", ""))}


def _progress(folder: Path, found: _Found) -> None:
    lines = complete_lines(folder / "train.jsonl")
    if lines:
        found.known["epoch"] = _integer(json.loads(lines[-1])["epoch"])


def _result(folder: Path, found: _Found) -> None:
    for card in CARDS:
        if (folder / card).exists():
            _small_json(folder / card)
            if not (folder / "weights.safetensors").exists():
                found.problems.append("weights.safetensors is missing")


def _numbers(folder: Path, found: _Found) -> None:
    summaries = [
        path for path in (folder / "summary.json", *folder.glob("evaluations/*/summary.json")) if path.exists()
    ]
    counted = []
    for path in summaries:
        check_regular(path, LARGEST)
        if not _is_of_another(found, f"{path.parent} measured", defenses_of(path.parent)):
            counted.append(path.parent)
    found.known["evaluations"] = len(counted)
    best = best_numbers(counted, found.known.get("threat", ""))
    found.known["best"] = best
    if best and best.clean.defended:
        found.known["note"] = found.own.doubt(best.evaluation)


def _is_of_another(found: _Found, what: str, defenses: Iterable[str]) -> bool:
    """Whether something is not of the run's defense, which is then told."""
    if told := found.own.contradiction(what, defenses):
        found.problems.append(f"{_inside(found.own.run, told).rstrip('.')}: it does not count")
    return bool(told)


def _checks(folder: Path, found: _Found) -> None:
    reports = []
    for path in (folder / "check.json", *folder.glob("check/**/check.json")):
        for report in _small_json(path)["reports"].values() if path.exists() else ():
            if not _is_of_another(found, f"{path} checked", [report.get("defense", "")]):
                reports.append(report)
    found.known |= {"checks": len(reports), "checks_failed": sum(not report["passed"] for report in reports)}


def _size(folder: Path, found: _Found) -> None:
    """Add the sizes of all files; links are not followed."""
    found.known["size"] = sum(
        os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names
    )


def _small_json(path: Path) -> Any:
    check_regular(path, LARGEST)
    return read_versioned(path)


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def in_order(runs: Sequence[ListedRun], column: str, *, largest_first: bool) -> list[ListedRun]:
    """Sort runs by a field, or by the accuracy `clean` or `robust`; runs without a value come last."""
    valued = [(value, run) for run in runs if (value := _value_of(run, column)) not in (None, "")]
    ordered = sorted(valued, key=lambda one: one[0], reverse=largest_first)
    return [run for _, run in ordered] + [run for run in runs if _value_of(run, column) in (None, "")]


def _value_of(run: ListedRun, column: str) -> Any:
    if column not in ("clean", "robust"):
        return getattr(run, column)
    result: Result | None = getattr(run.best, column, None)
    return None if result is None else result.accuracy


def as_json(run: ListedRun) -> dict[str, Any]:
    """Return a run as JSON values."""
    best = run.best and {
        "evaluation": str(run.best.evaluation),
        "attacks": list(run.best.attacks),
        "clean": vars(run.best.clean),
        "robust": run.best.robust and vars(run.best.robust),
    }
    return {**vars(run), "folder": str(run.folder), "best": best}


def table(runs: Sequence[ListedRun]) -> str:
    """Return the runs as a table for the terminal, with a line for each problem and note, and a caption."""
    lines = [text_table(HEADING, map(_cells, runs))]
    lines += [f"{printable(run.name)}: {printable(told)}" for run in runs for told in (run.problem, run.note) if told]
    return "\n".join([*lines, CAPTION])


def _cells(run: ListedRun) -> list[str]:
    robust, clean = run.best and run.best.robust, run.best and run.best.clean
    cells = [run.name, run.recipe, run.data, run.threat, _progress_of(run)]
    cells += [percent(clean.accuracy, clean.low, clean.high) if clean else ""]
    cells += [percent(robust.accuracy, robust.low, robust.high) if robust else "", _under(run.best)]
    cells += [str(clean.n) if clean else "", "" if run.seed is None else str(run.seed)]
    cells += [f"{run.size / 1e6:.1f} MB", run.started.partition("T")[0]]
    return [printable(cell) or "–" for cell in cells]


def _progress_of(run: ListedRun) -> str:
    if run.state in ("training", "interrupted"):
        return f"{run.state} at epoch {run.epoch or 0} of {run.epochs or '?'}"
    if run.state == "checked" and run.checks_failed:
        return f"checked, {run.checks_failed} of {run.checks} FAILED"
    return run.state


def _under(best: Best | None) -> str:
    """Return classifier, radius and attacks of a robust accuracy."""
    if best is None:
        return ""
    names = [best.clean.classifier]
    if best.robust:
        first, *others = best.attacks
        attacks = f"worst of {first} and {len(others)} more" if others else first
        names += [column_title(best.robust.norm, best.robust.radius), attacks]
    return ", ".join(names)
