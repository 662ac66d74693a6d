"""Measure how adversarial images that are crafted on each source mislead classifiers behind a defense."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forefend.attacks.base import Attack
from forefend.attacks.momentum import di_fgsm, mi_fgsm, ti_bim
from forefend.attacks.pgd import PGD, fgsm
from forefend.checks import InputError, choose
from forefend.data import ImageDataset, sample
from forefend.evaluation import black_boxes
from forefend.evaluation.access import Access, CraftedOn
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluate import Evaluation, prepare
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.model_checks import check_defense, check_model, has_gradient
from forefend.evaluation.result_store import hold
from forefend.evaluation.transferability.crafting import craft_once
from forefend.evaluation.transferability.matrix import ALONE, ANY, DEFENDED, Cell, TransferMatrix, cell_of
from forefend.evaluation.trial import Trial
from forefend.models.defended import Defended
from forefend.models.defense import Defense, load
from forefend.models.freezing import channels_last_copy, device_of, gradients_enabled
from forefend.models.given_images import images_for_network
from forefend.runtime.distributed import process_group
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_threat_model
from forefend.threat_models.wasserstein import Wasserstein

SUMMARY = "transfer.json"
# Attacks by name: the title in tables, and the attack in a threat model.
ATTACKS: dict[str, tuple[str, Callable[[ThreatModel], Attack]]] = {
    "fgsm": ("FGSM", fgsm),
    "pgd": ("PGD-20", lambda threat: PGD(threat, 20, 2.5 * threat.radius / 20)),
    "mi-fgsm": ("MI-FGSM", lambda threat: mi_fgsm(threat, 20, threat.radius / 10)),
    "di-fgsm": ("DI-FGSM", lambda threat: di_fgsm(threat, 20, threat.radius / 10, decay=1.0)),
    "ti-bim": ("TI-BIM", lambda threat: ti_bim(threat, 20, threat.radius / 10)),
}


@dataclass(frozen=True)
class _Source:
    """A model that adversarial images are crafted on."""

    classifier: str
    behind: str
    network: nn.Module

    @property
    def name(self) -> str:
        return f"{self.classifier} behind {self.behind}" if self.behind else self.classifier


@gradients_enabled()
def transfer(
    defense: Defense | str | Path,
    classifiers: Mapping[str, nn.Module],
    data: Any,
    *,
    threat: str | ThreatModel | None = None,
    attacks: Sequence[str] = ("pgd", "mi-fgsm"),
    surrogates: Mapping[str, nn.Module] | None = None,
    surrogate_defenses: Mapping[str, Defense | str | Path] | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
    allow_weak: bool = False,
    log: Callable[[str], None] | None = None,
) -> TransferMatrix:
    """Measure each classifier behind a defense on images that are crafted on every source.

    The sources are all classifiers alone, behind the defense, and behind surrogate defenses. A classifier behind the
    defense as the source of its own images is the white-box attack. Images are crafted once for each source. With a
    folder, verdicts are recorded as they are found, and an interrupted measurement resumes.

    Args:
        defense: the defense, or the folder of its run.
        classifiers: the classifiers to defend, by name: images in [0, 1] to logits.
        data: test images, in any form that `as_image_dataset` accepts.
        threat: the threat model, or its name; by default that of the defense's training.
        attacks: names among `fgsm`, `pgd`, `mi-fgsm`, `di-fgsm` and `ti-bim`.
        surrogates: further classifiers that images are crafted on, by name.
        surrogate_defenses: public defenses, or their folders, by name; an attacker has one in the place of the private
            defense.
        folder: where records, `transfer.json` and `transfer.md` are written; None keeps nothing.
        seed: seed of the attacks.
        batch_size: images attacked at once.
        allow_weak: accept classifiers that are near chance on clean images.
        log: receives lines about the sources and the estimated cost.

    Returns:
        The accuracies; `print` shows them as a table.

    Raises:
        InputError: images, classifiers, defenses or attacks cannot be used, or the folder holds another measurement.
    """
    log, first = log or (lambda line: None), next(iter(classifiers.values()), None)
    images = images_for_network(first if isinstance(first, nn.Module) else None, data, "the classifier")
    defense = _loaded(defense, DEFENDED)
    threat = _threat_of(threat, defense)
    fronts: dict[str, Defense | None] = {ALONE: None, DEFENDED: defense}
    for title, other in (surrogate_defenses or {}).items():
        if title in fronts:
            raise InputError(f"A surrogate defense is called {title!r}: give it another name.")
        fronts[title] = _loaded(other, title)
    everyone = _checked(classifiers, surrogates or {}, images, allow_weak)
    for front in fronts.values():
        if front is not None:
            check_defense(front, images)
    sources = _sources(everyone, fronts, images, log)
    models = [
        EvaluatedModel(label, Defended(defense, network), defended=True, seen=defense.has_seen(network))
        for label, network in classifiers.items()
    ]
    chosen = product(_chosen(attacks, threat), sources)
    trials = {(title, source): _trial(title, attack, threat, source) for (title, attack), source in chosen}
    about = {"defense": f"{defense.card.recipe or 'the'} defense", "data": images.name}
    with _place(folder) as place, hold(place):
        evaluation = prepare(models, images, list(trials.values()), folder=place, seed=seed, batch_size=batch_size)
        evaluation.manifest.check(place, SUMMARY)
        own = [trial for (_, source), trial in trials.items() if source is sources[0]]
        attackers = [EvaluatedModel(source.name, source.network) for source in sources]
        log(f"{len(models)} models, {len(sources)} sources, {len(images)} images -> {place}")
        log(str(cost_of(attackers, images, own, batch_size)))
        craft_once(evaluation)
        cells, warnings = _cells(evaluation, list(trials), models)
        matrix = TransferMatrix(cells, str(threat), seed, about, warnings)
        if not process_group().rank:
            matrix.save(place)
            evaluation.manifest.save(place)
    return matrix


def _loaded(given: Defense | str | Path, what: str) -> Defense:
    if not isinstance(given, Defense | str | Path):
        raise InputError(f"A {type(given).__name__} was given as {what}, expected a Defense or the folder of a run.")
    return given if isinstance(given, Defense) else load(given)


def _threat_of(given: str | ThreatModel | None, defense: Defense) -> ThreatModel:
    if not (given or defense.card.threat):
        raise InputError("The defense was trained without a threat model: give one, such as Linf:8/255.")
    threat = as_threat_model(given or defense.card.threat)
    if isinstance(threat, Wasserstein):
        raise InputError(f"Transfer is measured in Linf or L2, not in {threat}: give one such as Linf:8/255.")
    return threat


def _checked(
    classifiers: Mapping[str, nn.Module], surrogates: Mapping[str, nn.Module], images: ImageDataset, allow_weak: bool
) -> dict[str, nn.Module]:
    """Return all classifiers by name, after a check that they classify the images."""
    if not classifiers:
        raise InputError("There is no classifier to defend: give at least one, by name.")
    if both := classifiers.keys() & surrogates.keys():
        raise InputError(f"{sorted(both)[0]} is a classifier and a surrogate: give each another name.")
    everyone = {**classifiers, **surrogates}
    some = sample(images, min(500, len(images)), seed=0)
    for name, network in everyone.items():
        check_model(network, images, name)
        if not allow_weak:
            clean_accuracy(name, network, some)
    return everyone


def _sources(
    everyone: Mapping[str, nn.Module],
    fronts: Mapping[str, Defense | None],
    images: ImageDataset,
    log: Callable[[str], None],
) -> list[_Source]:
    """Return every classifier alone and behind each defense, if it has a gradient."""
    found = []
    x, _, _ = images.batch(torch.arange(1))
    for (behind, front), (name, network) in product(fronts.items(), everyone.items()):
        whole = network if front is None else Defended(front, network)
        source = _Source(name, behind, channels_last_copy(whole))
        if has_gradient(source.network, x.to(device_of(source.network))):
            found.append(source)
        else:
            log(f"no images are crafted on {source.name}, which gives no gradient")
    if not found:
        raise InputError("No classifier gives a gradient to craft images with: name a surrogate that does.")
    return found


def _chosen(attacks: Sequence[str], threat: ThreatModel) -> list[tuple[str, Attack]]:
    if isinstance(attacks, str) or not attacks:
        raise InputError(f"The attacks are {attacks!r}, expected a list of names such as ['pgd', 'mi-fgsm'].")
    chosen = [choose(name, ATTACKS, "attack for transfer") for name in dict.fromkeys(attacks)]
    return [(title, make(threat)) for title, make in chosen]


def _trial(title: str, attack: Attack, threat: ThreatModel, source: _Source) -> Trial:
    view = CraftedOn(source.network, source.name)
    return Trial(f"{title} from {source.name}", attack, threat, access=Access(view))


def _cells(
    evaluation: Evaluation, rows: Sequence[tuple[str, _Source]], models: Sequence[EvaluatedModel]
) -> tuple[list[Cell], list[str]]:
    """Count the verdicts of each model under each attacker, and under the worst of those with another classifier."""
    cells, warnings = list[Cell](), list[str]()
    outcomes = evaluation.outcomes(allow_weak=True, warn=str)  # the table shows them, and no attack follows
    for model, outcome in zip(models, outcomes, strict=True):
        warnings += outcome.warnings
        shown = black_boxes.shown_name(model)
        clean, *attacked = (list(verdicts.values()) for verdicts in outcome.verdicts)
        groups: dict[tuple[str, str], dict[str, list[bool]]] = {}
        for (title, source), verdicts in zip(rows, attacked, strict=True):
            groups.setdefault((title, source.behind), {})[source.classifier] = verdicts
        cells.append(cell_of(("", "", ALONE), shown, model.seen, clean))
        for (title, behind), found in groups.items():
            if others := [verdicts for classifier, verdicts in found.items() if classifier != model.name]:
                found[ANY] = [any(each) for each in zip(*others, strict=True)]
            cells += [cell_of((title, by, behind), shown, model.seen, each) for by, each in found.items()]
    return cells, warnings


@contextmanager
def _place(folder: str | Path | None) -> Iterator[Path]:
    """Yield the folder, or one that is removed afterwards."""
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
