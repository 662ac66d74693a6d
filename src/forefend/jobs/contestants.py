"""Who is compared with a defence, each trained on as many operations as it was, and how each is attacked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from .. import preprocessors, records
from ..attacks.autoattack import AutoAttack
from ..budget import allowance, flops_per_image
from ..checks import choose
from ..classifiers import Normalised
from ..classifiers.card import load_card
from ..data import Images, augmentation, sample
from ..defence import Card, Defence, Defended, load
from ..guides import Guide
from ..named import Named, save_classifier, training_config
from ..noisy import MeanOverNoise
from ..recipe import Cast, Recipe
from ..recipes import Adversarial, DenoisedSmoothing
from ..recipes.denoised_smoothing import stability
from ..running import to_the_end
from ..suites import Averaged, Suite, through_bpda, white_box
from ..threat import ThreatModel
from ..train import fit
from ..trained import defence_of
from ..ways import Ways
from .train import new_preprocessor

Attacked = Callable[[Suite], tuple[Suite, str]]  # from the suite to how it is run against one contestant, and in words


@dataclass(frozen=True)
class Contestant:
    """One row to be.

    Args:
        name: what the table calls it.
        network: the whole pipeline, images to logits.
        classifier: the classifier inside it.
        attacked: how it is attacked.
        training_flops: operations spent on its training.
    """

    name: str
    network: nn.Module
    classifier: nn.Module
    attacked: Attacked
    training_flops: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What contestants are trained for.

    Args:
        classifier: the frozen one.
        threat: the attacker's.
        images: training images.
        budget: operations that training may take.
        seed: of initialisation, order and attacks.
        data: the set's name, by which training images are augmented.
        folder: where trained contestants are kept.
        accelerator: device and processes of their training.
    """

    classifier: Named
    threat: ThreatModel
    images: Images
    budget: float
    seed: int
    data: str
    folder: Path
    accelerator: Accelerator


def plainly(suite: Suite) -> tuple[Suite, str]:
    """White box, as the suite says."""
    return suite, "white box"


def and_through_bpda(suite: Suite) -> tuple[Suite, str]:
    """White box, and each attack with gradients once more through BPDA; the worst of both counts."""
    return [*suite, *_through_bpda(suite)], "white box and BPDA"


def only_through_bpda(suite: Suite) -> tuple[Suite, str]:
    """Through BPDA, where there is no gradient otherwise; attacks that need none stay as they are."""
    others = [trial for trial in suite if not (trial.gradients() and trial.sees is white_box)]
    return [*others, *_through_bpda(suite)], "BPDA, as it has no gradient"


def through_noise(suite: Suite) -> tuple[Suite, str]:
    """Each attack on what answers at random: it averages, and is judged at its end, as a lucky answer is no loss."""
    trials = []
    for trial in suite:
        attack = replace(trial.attack, version="rand") if isinstance(trial.attack, AutoAttack) else trial.attack
        trials.append(replace(trial, attack=attack, sees=Averaged(1, trial.sees), run=to_the_end))
    return trials, "EOT over its noisy copies"


def _through_bpda(suite: Suite) -> Suite:
    seen = [trial for trial in suite if trial.gradients() and trial.sees is white_box]
    return [replace(trial, name=f"{trial.name} BPDA", sees=through_bpda) for trial in seen]


def transformed(classifier: nn.Module, images: Images) -> list[Contestant]:
    """The classifier behind each transformation without weights."""
    x, _, _ = images.batch(torch.arange(1))
    found = []
    for name in ("jpeg", "bit-depth", "total-variation"):
        transform = preprocessors.build(name, channels=images.shape[0])
        settings = {key: value for key, value in transform.settings.items() if key != "channels"}  # type: ignore[operator, union-attr]
        title = f"{name} ({', '.join(f'{key} {value}' for key, value in settings.items())})"
        with torch.enable_grad():
            flows = transform(x.clone().requires_grad_()).requires_grad
        pipeline = Defended(Defence(transform, Card(name, dict(transform.settings))), classifier)  # type: ignore[arg-type]
        found.append(Contestant(title, pipeline, classifier, and_through_bpda if flows else only_through_bpda))
    return found


def denoised_smoothing(rules: Rules, architecture: str, *, sigma: float, copies: int) -> Contestant:
    """A denoiser trained with the stability loss on the whole budget, and the mean over noisy copies behind it."""
    recipe = DenoisedSmoothing(sigma=sigma, objective=stability)
    network = new_preprocessor(architecture, rules.images, rules.seed)
    cast = Cast(network, [Guide(rules.classifier.network, rules.classifier.name)])
    folder = rules.folder / f"denoised-smoothing-{architecture}-sigma{sigma:g}"
    spent = _trained(rules, folder, recipe, cast, {"preprocessor": architecture})
    denoiser = load(folder)
    pipeline = MeanOverNoise(Defended(denoiser, rules.classifier.network), sigma, copies)
    title = f"denoised smoothing ({architecture}, sigma {sigma:g}, {copies} copies)"
    return Contestant(title, pipeline.eval(), rules.classifier.network, through_noise, spent)


def fine_tuned(rules: Rules, lr: float, inner: dict[str, Any]) -> Contestant:
    """The classifier's own weights trained on, on attacked images, on the whole budget.

    Args:
        rules: what it is trained for.
        lr: SGD's learning rate.
        inner: `steps` and `relative_step` of the inner attack, where they are not the recipe's own.
    """
    recipe = Adversarial(threat=rules.threat, lr=lr, **inner)
    cast = Cast(classifier=copy.deepcopy(rules.classifier.network))
    spelled = str(rules.threat).replace("/", "_").replace(":", "")
    folder = rules.folder / f"adversarial-fine-tuning-{spelled}-lr{lr:g}"
    spent = _trained(rules, folder, recipe, cast, {"classifier": rules.classifier.architecture})
    own = load_card(folder / "classifier.json")
    return Contestant(f"adversarial fine-tuning (lr {lr:g})", own, own, plainly, spent)


def check_rivals(architecture: str, *, sigma: float, copies: int, lr: float) -> None:
    """Refuse settings of the trained rivals before anything is trained.

    Raises:
        InputError: no such denoiser with weights, or a number out of range.
    """
    choose(architecture, preprocessors.ARCHITECTURES, "preprocessor architecture")
    MeanOverNoise(nn.Identity(), sigma, copies)
    Adversarial(lr=lr).check()


def _trained(rules: Rules, folder: Path, recipe: Recipe, cast: Cast, networks: dict[str, str]) -> float:
    """Train on what the budget pays, in a run of its own that goes on where it stopped; the operations spent."""
    recipe.check()
    per_image = flops_per_image(recipe, rules.images, cast)
    paid = allowance(rules.budget, per_image, len(rules.images))
    recipe = replace(recipe, epochs=paid.epochs)  # type: ignore[type-var]
    images = rules.images
    if paid.images < len(images):
        images = sample(images, paid.images, rules.seed)
    config = training_config(_name_of(recipe), recipe, images, rules.seed) | networks
    config |= {"data": rules.data, "guides": [], "from": rules.classifier.config() | {"spec": ""}}
    config |= {"budget_flops": rules.budget, "training_flops": paid.flops}
    run = records.start(folder, config)
    done = "defence.json" if "preprocessor" in networks else "classifier.json"
    if not (run.folder / done).exists():
        print(f"{folder.name}: {paid.epochs} epochs of {paid.images} images, {paid.flops / 1e9:.1f} GFLOP", flush=True)
        augment = augmentation(rules.data)
        # Nobody watches: what a watch asks for would not be in the budget, and a rival that collapses is a result.
        fit(
            recipe,
            images,
            cast,
            run=run,
            seed=rules.seed,
            augment=augment,
            accelerator=rules.accelerator,
            ways=Ways(watch=None),
        )
        _save(run.folder, recipe, images, cast, networks)
    return paid.flops


def _name_of(recipe: Recipe) -> str:
    """What the command line calls the two recipes that are trained here."""
    return "adversarial" if isinstance(recipe, Adversarial) else "denoised-smoothing"


def _save(folder: Path, recipe: Recipe, images: Images, cast: Cast, networks: dict[str, str]) -> None:
    if "preprocessor" in networks:
        defence_of(recipe, images, cast).save(folder)
        return
    assert isinstance(cast.classifier, Normalised)
    save_classifier(folder, cast.classifier, networks["classifier"], images)
