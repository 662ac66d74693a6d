"""Named: the classifier that a word on the command line stands for, measured before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forefend.checks import InputError, choose, unknown_name
from forefend.data import ImageDataset, sample
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.models import classifiers
from forefend.models.classifiers.model_card import NamedClassifier, classifier_of_card, read_card, save_classifier
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.initialization import new_classifier
from forefend.recipes import RECIPES
from forefend.recipes.base import Networks
from forefend.runtime import run_folder
from forefend.runtime.distributed import accelerator_on
from forefend.training.artifacts import training_config
from forefend.training.batches import Augment
from forefend.training.trainer import fit

Split = Callable[[str], ImageDataset]


@dataclass(frozen=True)
class Finder:
    """Finds classifiers for one data set.

    Args:
        split: `"train"` or `"test"` to images.
        runs: folder where classifiers trained on demand are kept.
        mean: normalization of weights that come without one.
        std: likewise.
        allow_weak: accept a classifier that is near chance on clean images.
        seed: of classifiers trained on demand.
        augment: for the same.
        device: where these are trained, `cpu` or `cuda`; None for the best there is.
    """

    split: Split
    runs: Path
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    allow_weak: bool = False
    seed: int = 0
    augment: Augment | None = None
    device: str | None = None

    def find(self, spec: str) -> NamedClassifier:
        """The classifier that `spec` stands for, measured on training images.

        Args:
            spec: a run's folder, a JSON card, `architecture:weights`, or an architecture to be trained first:
                naturally, or by the recipe after an @, as in `tinyresnet@trades`; `@random` leaves it untrained.

        Raises:
            InputError: nothing answers to it, its files are damaged, or it is near chance on clean images.
        """
        found = self.look_up(spec)
        if not self.allow_weak:
            clean_accuracy(found.name, found.network, sample(self.split("train"), 500, seed=0))
        return found

    def look_up(self, spec: str) -> NamedClassifier:
        """The classifier that `spec` stands for, not measured.

        Args:
            spec: as for `find`.

        Raises:
            InputError: nothing answers to it, or its files are damaged.
        """
        path, (name, colon, weights) = Path(spec), spec.partition(":")
        if path.suffix == ".json":
            card = read_card(path)
            told = {"channels", "size"} <= card.keys()
            shape = {} if told else dict(zip(("channels", "size"), self.split("test").shape, strict=False))
            return classifier_of_card(path, card["name"], spec, **shape)
        if path.is_dir():
            return self._of_run(path)
        if colon:
            return self._of_weights(name, Path(weights), spec)
        architecture, _, recipe = spec.partition("@")
        if architecture in classifiers.ARCHITECTURES and recipe == "random":
            return NamedClassifier(
                spec, spec, new_classifier(architecture, self.split("train"), self.seed), architecture
            )
        if architecture in classifiers.ARCHITECTURES:
            return self._trained(architecture, recipe or "natural")
        if path.is_file():
            raise InputError(
                f"{spec} is a file of weights: say of which architecture, as ARCHITECTURE:{spec}; a network of a class "
                "of your own is judged from Python, with forefend.evaluate."
            )
        raise unknown_name(spec, classifiers.ARCHITECTURES, "run, JSON card or architecture")

    def _of_run(self, folder: Path) -> NamedClassifier:
        if not (folder / "classifier.json").exists():
            raise InputError(f"{folder} holds no classifier: it has no classifier.json; did its training end?")
        return classifier_of_card(folder / "classifier.json", folder.name, str(folder))

    def _of_weights(self, architecture: str, weights: Path, spec: str) -> NamedClassifier:
        channels, size, _ = self.split("test").shape
        network = load_weights(
            architecture,
            weights,
            mean=self.mean,
            std=self.std,
            channels=channels,
            size=size,
        )
        return NamedClassifier(weights.stem, spec, network, architecture, self.mean, self.std)

    def _trained(self, architecture: str, name: str) -> NamedClassifier:
        """Train an architecture with a recipe, or take it from the runs where that was done before."""
        images = self.split("train")
        recipe = choose(name, RECIPES, "recipe")(epochs=10)  # type: ignore[call-arg]
        folder = self.runs / f"{name}-{images.name}-{architecture}-s{self.seed}"
        if not (folder / "classifier.json").exists():
            print(f"training {architecture} on {images.name} first ({name}), kept in {folder}", flush=True)
            config = training_config(name, recipe, images, self.seed) | {"classifier": architecture}
            network = new_classifier(architecture, images, self.seed)
            recipe.players(Networks(classifier=network))  # refuses a recipe that needs more than a classifier
            run = run_folder.start(folder, config)
            networks, accelerator = Networks(classifier=network), accelerator_on(self.device)
            fit(recipe, images, networks, run=run, seed=self.seed, augment=self.augment, accelerator=accelerator)
            save_classifier(folder, network, architecture, images)
        shown = architecture if name == "natural" else f"{architecture}@{name}"
        return NamedClassifier(shown, str(folder), self._of_run(folder).network, architecture)
