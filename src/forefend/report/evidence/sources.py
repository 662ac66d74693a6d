"""Everything that a run folder says of itself, read once; what cannot be read becomes a fault of the page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from forefend.checks import InputError
from forefend.evaluation.certification import certificate
from forefend.evaluation.certification.certificate import Certificate
from forefend.evaluation.corruption_results import CorruptionResults
from forefend.evaluation.corruption_results import load as load_corruptions
from forefend.evaluation.gradient_masking.check_report import CheckReport, reports_in
from forefend.evaluation.transferability.matrix import TransferMatrix, matrix_in
from forefend.models.card_file import read_card_file
from forefend.models.saved_identity import verified_identity_in
from forefend.report.evidence.evaluations import FoundEvaluation, evaluations_of
from forefend.report.own_defense import contradiction
from forefend.runtime.files import read_versioned

Found = TypeVar("Found")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Sources:
    """What a run folder holds.

    Args:
        run: the folder.
        confidence: of all intervals, in (0, 1).
        config: the configuration of the training; empty where nothing was trained.
        trained: versions, machine, command and time of the training.
        log: one entry an epoch.
        card: of the defense, or of the trained classifier.
        classifiers: cards of the classifiers in the folder, by name.
        evaluations: the evaluations.
        checks: the reports of the gradient-masking checks; not those that name another defense.
        transfers: matrices of transferred attacks, by folder.
        certificates: certificates of randomized smoothing, by folder.
        corruptions: results on corrupted images, by folder.
        latency: what `forefend latency` recorded.
        training_flops: operations of the training, as `forefend compare` counted them; 0 where it did not.
        faults: files that cannot be read or contradict each other, a sentence each.
    """

    run: Path
    confidence: float = 0.95
    config: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    classifiers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluations: Sequence[FoundEvaluation] = ()
    checks: Sequence[CheckReport] = ()
    transfers: Mapping[str, TransferMatrix] = field(default_factory=dict)
    certificates: Mapping[str, Sequence[Certificate]] = field(default_factory=dict)
    corruptions: Mapping[str, CorruptionResults] = field(default_factory=dict)
    latency: Sequence[Mapping[str, Any]] = ()
    training_flops: float = 0.0
    faults: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.run.resolve().name

    @property
    def threat(self) -> str:
        """The threat model of the training; empty for none."""
        settings = self.config.get("settings")
        told = settings.get("threat") if isinstance(settings, dict) else None
        return str(self.card.get("threat") or told or "")

    @property
    def all_faults(self) -> list[str]:
        """The faults of all files, each once."""
        return list(dict.fromkeys([*self.faults, *(fault for one in self.evaluations for fault in one.faults)]))


def read_run(run: str | Path, confidence: float = 0.95) -> Sources:
    """Read the folder of a run, or of one evaluation; nothing is run, and no network is loaded.

    Args:
        run: the folder.
        confidence: of the intervals, in (0, 1).

    Raises:
        InputError: there is no such folder, or it holds nothing of forefend.
    """
    run = Path(run)
    if not run.is_dir():
        raise InputError(f"There is no folder {run}: give that of a run or an evaluation.")
    reader = _Reader(run)
    told = _mapping(reader.one("config.json", read_versioned, None))
    card = _mapping(reader.one("defense.json", _card, None) or reader.one("classifier.json", _card, None))
    evaluations = evaluations_of(run, confidence)
    checks = reader.one("check/check.json", reports_in, []) or reader.one("check.json", reports_in, [])
    own = reader.one("weights.safetensors", lambda path: verified_identity_in(run), "") if "guides" in card else ""
    found = Sources(
        run,
        confidence,
        _mapping(told.get("config")),
        _mapping(told.get("about")),
        reader.one("train.jsonl", _log, []),
        card,
        {name.split("/")[-2]: card for name, card in reader.every("*/classifier.json", "guides/*/classifier.json")},
        evaluations,
        [one for one in checks if not contradiction("", [one.defense], own)],
        reader.all("transfer/*/transfer.json", matrix_in),
        reader.all("certificates/*/certificates.jsonl", certificate.read),
        reader.all("corruptions/*/corruptions.json", lambda path: load_corruptions(path.parent)),
        reader.one("latency.json", _latencies, []),
        max(reader.all("compare/**/compare.json", _flops).values(), default=0.0),
        [*reader.faults, *_of_others(run, own, evaluations, checks)],
    )
    if not (told or card or found.evaluations or found.checks or found.transfers or found.faults):
        raise InputError(f"{run} holds no run and no evaluation: give a folder that forefend wrote.")
    return found


def _of_others(
    run: Path, own: str, evaluations: Sequence[FoundEvaluation], checks: Sequence[CheckReport]
) -> Iterator[str]:
    """Yield a sentence for each evaluation and check of another defense than that in the folder, where it is known."""
    found = [(f"{one.folder} measured", [model.model.defense for model in one.models]) for one in evaluations]
    found += [(f"The check of {one.model} in {run} is of", [one.defense]) for one in checks]
    yield from filter(None, (contradiction(what, defenses, own) for what, defenses in found))


class _Reader:
    """Reads files of a folder, and keeps what is wrong with them."""

    def __init__(self, run: Path) -> None:
        self.run, self.faults = run, list[str]()

    def one(self, name: str, read: Callable[[Path], Found], missing: Other) -> Found | Other:
        path = self.run / name
        if not path.exists():
            return missing
        try:
            return read(path)
        except InputError as error:
            self.faults.append(str(error))
        except (ValueError, TypeError, KeyError, AttributeError, LookupError, RecursionError):
            self.faults.append(f"{path} is damaged, or not of forefend: it does not count.")
        return missing

    def all(self, pattern: str, read: Callable[[Path], Found]) -> dict[str, Found]:
        found = {}
        for path in sorted(self.run.glob(pattern)):
            held = self.one(str(path.relative_to(self.run)), read, None)
            if held is not None:
                found[path.parent.name] = held
        return found

    def every(self, *patterns: str) -> list[tuple[str, Mapping[str, Any]]]:
        paths = [
            path.relative_to(self.run).as_posix() for pattern in patterns for path in sorted(self.run.glob(pattern))
        ]
        return [(name, self.one(name, _card, {})) for name in paths]


def _card(path: Path) -> dict[str, Any]:
    content, sha256 = read_card_file(path)
    if any(type(guide[name]) is not str for guide in content.get("guides", []) for name in ("name", "fingerprint")):
        raise TypeError
    return dict(content) | ({"weights_sha256": sha256} if sha256 else {})


def _log(path: Path) -> list[dict[str, Any]]:
    return [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _latencies(path: Path) -> list[dict[str, Any]]:
    found = [dict(one) for one in read_versioned(path)["models"]]
    for one in found:
        numbers = [
            *one["milliseconds"].values(),
            *(one[name] for name in ("parameters", "weights", "memory", "threads")),
        ]
        if not all(type(number) in (int, float) and 0 <= number < math.inf for number in numbers):
            raise ValueError
    return found


def _flops(path: Path) -> float:
    return float(read_versioned(path)["budget_flops"])


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
