"""Who is compared with a defense, each trained on as many operations as it was, and how each is attacked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from forefend.attacks.autoattack import AutoAttack
from forefend.checks import choose
from forefend.data import ImageDataset, augmentation, sample
from forefend.evaluation.attack_runner import run_all_steps
from forefend.evaluation.trial import Averaged, Suite, through_bpda, white_box
from forefend.models import preprocessors
from forefend.models.classifiers import Normalized
from forefend.models.classifiers.model_card import NamedClassifier, load_card, save_classifier
from forefend.models.defense import Defended, Defense, DefenseCard, load
from forefend.models.guide import Guide
from forefend.models.initialization import new_preprocessor
from forefend.models.noise_averaging import MeanOverNoise
from forefend.recipes import Adversarial, DenoisedSmoothing
from forefend.recipes.base import Networks, Recipe
from forefend.recipes.denoised_smoothing import stability
from forefend.runtime import run_folder
from forefend.threat_models.base import ThreatModel
from forefend.training.artifacts import defense_of, training_config
from forefend.training.compute_budget import allowance, flops_per_image
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit

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
        seed: of initialization, order and attacks.
        data: the set's name, by which training images are augmented.
        folder: where trained contestants are kept.
        accelerator: device and processes of their training.
    """

    classifier: NamedClassifier
    threat: ThreatModel
    images: ImageDataset
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
        trials.append(replace(trial, attack=attack, sees=Averaged(1, trial.sees), run=run_all_steps))
    return trials, "EOT over its noisy copies"


def _through_bpda(suite: Suite) -> Suite:
    seen = [trial for trial in suite if trial.gradients() and trial.sees is white_box]
    return [replace(trial, name=f"{trial.name} BPDA", sees=through_bpda) for trial in seen]


def transformed(classifier: nn.Module, images: ImageDataset) -> list[Contestant]:
    """The classifier behind each transformation without weights."""
    x, _, _ = images.batch(torch.arange(1))
    found = []
    for name in ("jpeg", "bit-depth", "total-variation"):
        transform = preprocessors.build(name, channels=images.shape[0])
        settings = {key: value for key, value in transform.settings.items() if key != "channels"}  # type: ignore[operator, union-attr]
        title = f"{name} ({', '.join(f'{key} {value}' for key, value in settings.items())})"
        with torch.enable_grad():
            flows = transform(x.clone().requires_grad_()).requires_grad
        pipeline = Defended(Defense(transform, DefenseCard(name, dict(transform.settings))), classifier)  # type: ignore[arg-type]
        found.append(Contestant(title, pipeline, classifier, and_through_bpda if flows else only_through_bpda))
    return found


def denoised_smoothing(rules: Rules, architecture: str, *, sigma: float, copies: int) -> Contestant:
    """A denoiser trained with the stability loss on the whole budget, and the mean over noisy copies behind it."""
    recipe = DenoisedSmoothing(sigma=sigma, objective=stability)
    network = new_preprocessor(architecture, rules.images, rules.seed)
    networks = Networks(network, [Guide(rules.classifier.network, rules.classifier.name)])
    folder = rules.folder / f"denoised-smoothing-{architecture}-sigma{sigma:g}"
    spent = _trained(rules, folder, recipe, networks, {"preprocessor": architecture})
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
    networks = Networks(classifier=copy.deepcopy(rules.classifier.network))
    spelled = str(rules.threat).replace("/", "_").replace(":", "")
    folder = rules.folder / f"adversarial-fine-tuning-{spelled}-lr{lr:g}"
    spent = _trained(rules, folder, recipe, networks, {"classifier": rules.classifier.architecture})
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


def _trained(rules: Rules, folder: Path, recipe: Recipe, networks: Networks, nets: dict[str, str]) -> float:
    """Train on what the budget pays, in a run of its own that goes on where it stopped; the operations spent."""
    recipe.check()
    per_image = flops_per_image(recipe, rules.images, networks)
    paid = allowance(rules.budget, per_image, len(rules.images))
    recipe = replace(recipe, epochs=paid.epochs)  # type: ignore[type-var]
    images = rules.images
    if paid.images < len(images):
        images = sample(images, paid.images, rules.seed)
    run_config = training_config(_name_of(recipe), recipe, images, rules.seed) | nets
    run_config |= {"data": rules.data, "guides": [], "from": rules.classifier.config() | {"spec": ""}}
    run_config |= {"budget_flops": rules.budget, "training_flops": paid.flops}
    run = run_folder.start(folder, run_config)
    done = "defense.json" if "preprocessor" in nets else "classifier.json"
    if not (run.folder / done).exists():
        print(f"{folder.name}: {paid.epochs} epochs of {paid.images} images, {paid.flops / 1e9:.1f} GFLOP", flush=True)
        augment = augmentation(rules.data)
        # Nobody watches: what a watch asks for would not be in the budget, and a rival that collapses is a result.
        fit(
            recipe,
            images,
            networks,
            run=run,
            seed=rules.seed,
            augment=augment,
            accelerator=rules.accelerator,
            config=TrainingConfig(watch=None),
        )
        _save(run.folder, recipe, images, networks, nets)
    return paid.flops


def _name_of(recipe: Recipe) -> str:
    """What the command line calls the two recipes that are trained here."""
    return "adversarial" if isinstance(recipe, Adversarial) else "denoised-smoothing"


def _save(folder: Path, recipe: Recipe, images: ImageDataset, networks: Networks, nets: dict[str, str]) -> None:
    if "preprocessor" in nets:
        defense_of(recipe, images, networks).save(folder)
        return
    assert isinstance(networks.classifier, Normalized)
    save_classifier(folder, networks.classifier, nets["classifier"], images)
