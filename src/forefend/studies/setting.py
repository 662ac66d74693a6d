"""Settings: what stands for one data set of a paper at one scale, and the trainings and measurements in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from forefend.checks import choose
from forefend.recipes import RECIPES
from forefend.recipes.base import Recipe
from forefend.studies.attacks import AttackSpec
from forefend.studies.measurements import Accuracy, Measurement, Pipeline
from forefend.studies.networks import Published, Source, Trained
from forefend.studies.untrained import Preprocessor
from forefend.training.config import TrainingConfig

FAST = "the columns `fast` are not the paper's: a suite near AutoAttack"  # for `differs`
SCALES = ("smoke", "cpu", "paper")  # digits in seconds; real data and small networks; as published


def as_published(recipe: Recipe) -> TrainingConfig:
    """The options of training that the papers have."""
    return TrainingConfig()


@dataclass(frozen=True)
class Setting:
    """What stands for one data set of a paper at one scale.

    Args:
        data: the name of the data set.
        train: size of the sample of training images; None for all.
        test: size of the sample of test images; None for all.
        threat: the threat model of training and of l∞ attacks.
        networks: by the paper's name, an architecture, which is trained naturally, or published weights.
        recipes: by recipe, the hyper-parameters that differ from its defaults, as plain values.
        attacks: by the paper's name.
        few: size of the sample of test images for some of the attacks.
        added: attacks that are not the paper's; their columns stand beside those of its strongest one.
        seeds: of the defenses; the classifiers have seed 0.
        continued: the recipes that continue the training of the natural classifier instead of starting anew.
        training: from a recipe that attacks to the options of its training: `as_published`, or those recommended.
        flops: the operations that each training but those of natural classifiers may take; 0 for no limit.
        differs: how this differs from the paper, in words; empty for the paper's setting.
    """

    data: str
    train: int | None
    test: int | None
    threat: str
    networks: Mapping[str, str | Published]
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attacks: Mapping[str, AttackSpec] = field(default_factory=dict)
    few: Mapping[str, int] = field(default_factory=dict)
    added: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    continued: Collection[str] = ()
    training: Callable[[Recipe], TrainingConfig] = as_published
    flops: float = 0.0
    differs: str = ""

    def classifier(self, name: str, recipe: str = "natural", seed: int = 0, **changes: Any) -> Source:
        """The classifier of a name: published weights, or a training of its architecture.

        Args:
            name: the paper's name.
            recipe: that trains it; other ones than `natural` train the architecture of published weights anew.
            seed: of a training; another one gives an independent classifier.
            changes: hyper-parameters of the recipe.
        """
        network = choose(name, self.networks, "network of this study")
        if isinstance(network, Published):
            if recipe == "natural":
                return network
            network = network.architecture
        start = self.classifier(name) if recipe in self.continued else None
        return self._trained(recipe, network, self.settings(recipe, **changes), start=start, seed=seed)

    def settings(self, recipe: str, **changes: Any) -> dict[str, Any]:
        """The hyper-parameters of a recipe; those that attack have the threat model."""
        threat = {"threat": self.threat} if hasattr(choose(recipe, RECIPES, "recipe"), "threat") else {}
        return threat | dict(self.recipes.get(recipe, {})) | changes

    def preprocessor(self, recipe: str, architecture: str, guides: Sequence[Source], **changes: Any) -> list[Trained]:
        """The training of a preprocessor before frozen guides, with each seed."""
        settings, network = self.settings(recipe, **changes), self.architecture(architecture)
        return [self._trained(recipe, network, settings, guides=guides, seed=seed) for seed in self.seeds]

    def joint(self, recipe: str, architecture: str, classifier: str) -> list[Trained]:
        """The training of a preprocessor together with a classifier from scratch, with each seed."""
        settings, network, joint = self.settings(recipe), self.architecture(architecture), self.architecture(classifier)
        return [self._trained(recipe, network, settings, joint=joint, seed=seed) for seed in self.seeds]

    def _trained(self, recipe: str, architecture: str, settings: Mapping[str, Any], **more: Any) -> Trained:
        more |= {} if recipe == "natural" else {"flops": self.flops}
        made = Trained(recipe, self.data, self.train, architecture, settings, **more)
        return made if made.built.inner_attack() is None else replace(made, training=self.training(made.built))

    def architecture(self, name: str) -> str:
        """The architecture of a name, also of published weights."""
        network = choose(name, self.networks, "network of this study")
        return network.architecture if isinstance(network, Published) else network


def measured(
    setting: Setting,
    classifier: Source,
    attack: str,
    defenses: Sequence[Preprocessor | None] = (None,),
    others: Mapping[str, Source] = MappingProxyType({}),
) -> list[list[Measurement]]:
    """The accuracy of a classifier under an attack, for each seed of a defense.

    Args:
        setting: data and attacks.
        classifier: the classifier.
        attack: its name in the setting; `Natural` for clean images.
        defenses: the defense with each seed; None for the classifier alone.
        others: further classifiers that the attack uses, by name.
    """
    spec = None if attack == "Natural" else choose(attack, setting.attacks, "attack of this study")
    images = setting.few.get(attack, setting.test)
    pipelines = [Pipeline(classifier, setting.data, images, defense) for defense in defenses]
    return [[Accuracy(pipeline, spec, dict(others) if spec else {})] for pipeline in pipelines]
