"""Evaluate: subjects × trials × images to records, and records to a summary that anyone can recount."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import records, summary
from .attacks.worst import WorstOf
from .checks import InputError, check_classifier, check_clean_accuracy, check_images, check_labels
from .data import Images
from .defence import Defence, Defended
from .draw import Draw
from .modes import fingerprint, frozen, likeness
from .records import Record
from .suites import Suite, Trial
from .summary import CLEAN, Cell, Stand, Verdict, cells
from .threat import ThreatModel

OVERSHOOT = 1e-6  # an image that leaves its threat model by no more is projected and judged again
Judge = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, y, index) -> (B,) bool, lost


@dataclass(frozen=True)
class Subject:
    """What is judged: a classifier, alone or behind a defence.

    Args:
        name: the classifier's name in tables.
        network: images in [0, 1] to logits; the whole pipeline where there is a defence.
        defended: whether a defence stands in front.
        seen: whether the classifier was one of the defence's guides.
    """

    name: str
    network: nn.Module
    defended: bool = False
    seen: bool = False


def evaluate(
    subjects: nn.Module | Sequence[Subject],
    images: Images,
    suite: Suite,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    allow_weak: bool = False,
) -> list[Cell]:
    """Judge each subject on each image under each trial.

    With a folder, verdicts are appended to `records.jsonl` as they fall, an interrupted evaluation goes on where it
    stopped, and `summary.json` holds the cells.

    Args:
        subjects: what to judge; a bare network stands for itself.
        images: test images.
        suite: the trials, such as `suites.quick(Linf("8/255"))`; none for clean accuracy alone.
        folder: where the records go; None keeps nothing.
        seed: of the attacks' random starts.
        batch_size: images attacked at once.
        allow_weak: go on although a classifier is near chance on clean images.

    Raises:
        InputError: images, labels or what a subject returns cannot be used, or a classifier is near chance.
        RuntimeError: an attack left its threat model.
    """
    if isinstance(subjects, nn.Module):
        subjects = [_subject(subjects)]
    _check_names(subjects, suite)
    path = Path(folder) / "records.jsonl" if folder else None
    done = records.read(path) if path else []
    before = [likeness(subject.network) for subject in subjects]
    views = [replace(subject, network=_view(subject.network)) for subject in subjects]
    courts = [_Court(view, images, seed, batch_size, path, done) for view in views]
    for court in courts:  # all are looked at before anything is written
        court.check()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    found = [cell for court in courts for cell in court.judge(suite, allow_weak)]
    if before != [likeness(subject.network) for subject in subjects]:
        raise RuntimeError("A classifier changed while it was attacked: its verdicts must not be trusted.")
    if folder:
        summary.save(Path(folder), found)
    return found


def _check_names(subjects: Sequence[Subject], suite: Suite) -> None:
    """Refuse what could not be told apart in tables or records."""
    rows = [(subject.name, subject.defended) for subject in subjects]
    twice = next((name for name, defended in rows if rows.count((name, defended)) > 1), None)
    if twice is not None:
        raise InputError(f"Two subjects are called {twice!r}: give each a name of its own, or their rows would mix.")
    for identity in map(str, suite):
        if "<lambda>" in identity or " at 0x" in identity:
            raise InputError(
                f"The trial {identity} has no stable name: give its loss or attack one, by def or __str__."
            )


@dataclass(frozen=True)
class _Court:
    """One subject's evaluation."""

    subject: Subject
    images: Images
    seed: int
    batch_size: int
    path: Path | None
    records: list[Record]

    def judge(self, suite: Suite, allow_weak: bool) -> list[Cell]:
        key = self._key()
        clean = self._judged(key, CLEAN, self.images.index.tolist(), self._clean)
        accuracy = (len(clean) - sum(clean.values())) / len(clean)
        if not (allow_weak or self.subject.defended):
            check_clean_accuracy(accuracy, len(self.images.classes), len(clean), self.subject.name)
        # A misclassified image is lost to every attack: x itself is allowed.
        standing = [index for index in clean if not clean[index]]
        wrong = frozenset(clean) - frozenset(standing)
        verdicts = []
        for trial in suite:
            judged = self._judged(key, str(trial), standing, _attacker(trial, self.subject, self.seed))
            lost = wrong | {index for index in judged if judged[index]}
            verdicts.append(Verdict(trial.name, trial.threat.norm, trial.threat.radius, lost))
        stand = Stand(self.subject.name, self.subject.seen, self.subject.defended, len(self.images), self.seed)
        return cells(stand, wrong, verdicts)

    def check(self) -> None:
        """Refuse images or a subject that cannot be used."""
        index = self.images.index.tolist()
        if len(set(index)) < len(index):
            raise InputError("The test images hold the same image twice, which would count twice: give each once.")
        x, _, _ = self.images.batch(torch.arange(min(2, len(self.images))))
        check_images(x)
        classes = len(self.images.classes)
        check_labels(self.images.labels, classes, len(self.images))
        with torch.no_grad():
            x = x.to(_device(self.subject.network))
            check_classifier(self.subject.network, x, classes, self.subject.name)

    def _key(self) -> str:
        """What a record's verdict depends on beside trial, seed and image: the networks and the set."""
        data = f"{self.images.name}/{self.images.split}"
        return f"{data}:{fingerprint(self.subject.network)}:{_form(self.subject.network)}"

    def _clean(self, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            return self.subject.network(x).argmax(1) != y

    def _judged(self, key: str, trial: str, index: list[int], judge: Judge) -> dict[int, bool]:
        """Each image's verdict under one trial: read where it is on record, judged and recorded where not."""
        rows = {number: row for row, number in enumerate(self.images.index.tolist())}
        known = self._known(key, trial, rows)
        todo = torch.tensor([rows[i] for i in index if i not in known], dtype=torch.int64)
        began = time.monotonic()
        bar = tqdm(total=len(index), initial=len(index) - len(todo), desc=self._title(trial), unit="img", disable=None)
        with bar:
            for part in todo.split(self.batch_size) if len(todo) else ():
                x, y, numbers = (t.to(_device(self.subject.network)) for t in self.images.batch(part))
                lost = judge(x, y, numbers).tolist()
                record = Record(key, trial, self.seed, numbers.tolist(), lost, _digests(x, y))
                if self.path:
                    records.append(self.path, record)
                known |= dict(zip(record.index, record.lost, strict=True))
                bar.update(len(part))
        if bar.disable and len(todo):  # not on a terminal: a line when a trial is done
            seconds = time.monotonic() - began
            print(
                f"{self._title(trial)}: {sum(known[i] for i in index)} of {len(index)} lost, {seconds:.0f} s",
                flush=True,
            )
        return {i: known[i] for i in index}

    def _known(self, key: str, trial: str, rows: dict[int, int]) -> dict[int, bool]:
        """The verdicts on record, of images that are still what they were when they were judged."""
        found: dict[int, list[Any]] = {}
        for record in self.records:
            if (record.subject, record.trial, record.seed) == (key, trial, self.seed):
                found |= {i: pair for i, *pair in zip(record.index, record.lost, record.images, strict=False)}
        known: dict[int, bool] = {}
        for part in torch.tensor([rows[i] for i in found if i in rows], dtype=torch.int64).split(self.batch_size):
            x, y, numbers = self.images.batch(part)
            pairs = zip(numbers.tolist(), _digests(x, y), strict=True)
            known |= {i: found[i][0] for i, digest in pairs if found[i][1] == digest}
        return known

    def _title(self, trial: str) -> str:
        defended = " defended" if self.subject.defended else ""
        return f"{self.subject.name}{defended}: {'clean' if trial == CLEAN else trial}"


def _digests(x: Tensor, y: Tensor) -> list[str]:
    """Eight hexadecimal digits over the pixels and label of each image."""
    pairs = zip(x.cpu().contiguous(), y.tolist(), strict=True)
    return [hashlib.sha256(image.numpy().tobytes() + str(label).encode()).hexdigest()[:8] for image, label in pairs]


def _attacker(trial: Trial, subject: Subject, seed: int) -> Judge:
    """The judge of one trial: attack, see that the threat model was obeyed, and ask the subject itself."""
    network, threat = subject.network, trial.threat

    def lost(x_adv: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            wrong: Tensor = network(x_adv).argmax(1) != y
            return wrong

    def judge(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        attack = WorstOf((trial.attack,) * trial.restarts, lost)
        x_adv = attack(trial.sees(network), x, y, draw=Draw(index, seed, str(trial)))
        return lost(obey(threat, x_adv, x, str(trial)), y)

    return judge


def obey(threat: ThreatModel, x_adv: Tensor, x: Tensor, trial: str) -> Tensor:
    """The adversarial images, those that overshoot by rounding projected back.

    Args:
        threat: what they must obey.
        x_adv: what the attack returned.
        x: the clean images.
        trial: whose attack it was, for the message.

    Raises:
        RuntimeError: an image lies further outside than rounding explains, or is NaN.
    """
    excess = threat.excess(x_adv, x)
    if not bool((excess <= OVERSHOOT).all()):
        raise RuntimeError(
            f"{trial} left its threat model {threat} by {float(excess.max()):.2g}: "
            "its verdicts would be worthless, so none was recorded for this batch."
        )
    outside = ~threat.allows(x_adv, x)
    return torch.where(outside.view(-1, 1, 1, 1), threat.project(x_adv, x), x_adv)


def _subject(network: nn.Module) -> Subject:
    """A bare network as what it is: its own type and its defence's card say whether it is defended, and seen."""
    defence = getattr(network, "defence", None)
    seen = isinstance(network, Defended) and isinstance(defence, Defence) and defence.has_seen(network.classifier)
    return Subject("classifier", network, isinstance(network, Defended), seen)


def _form(network: nn.Module) -> str:
    """Digest of the modules: the same weights in another form judge otherwise, and some preprocessors have none."""
    settings = [getattr(module, "settings", None) for module in network.modules()]
    return hashlib.sha256(f"{network!r}{settings!r}".encode()).hexdigest()[:8]


def _view(network: nn.Module) -> nn.Module:
    """A frozen view of the network, laid out channels-last: the original is not touched, and convolves slower."""
    return frozen(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _device(network: nn.Module) -> torch.device:
    """Where a network lives; one without parameters or buffers works on the CPU."""
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return torch.device("cpu")
