"""Named: the classifier that a word on the command line stands for, measured before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from . import classifiers, records
from .batches import Augment
from .checks import InputError, check_classifier, check_clean_accuracy, choose, unknown
from .classifiers import Normalised
from .classifiers.card import load_card, read_card
from .classifiers.weights import load_weights
from .data import Images, sample
from .draw import Draw
from .modes import fingerprint, frozen
from .processes import accelerator_on
from .recipe import Cast, Recipe
from .recipes import RECIPES
from .train import fit

Split = Callable[[str], Images]


@dataclass(frozen=True)
class Named:
    """A classifier and how to find it again.

    Args:
        name: what tables call it.
        spec: the word that stands for it.
        network: images in [0, 1] to logits.
        architecture: its name on the classifiers' shelf.
        mean: given with the word, for weights that need it.
        std: likewise.
    """

    name: str
    spec: str
    network: nn.Module
    architecture: str
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def config(self) -> dict[str, Any]:
        """What a run's config keeps of it."""
        return {
            "name": self.name,
            "spec": self.spec,
            "mean": self.mean,
            "std": self.std,
            "fingerprint": fingerprint(self.network),
        }


@dataclass(frozen=True)
class Finder:
    """Finds classifiers for one data set.

    Args:
        split: `"train"` or `"test"` to images.
        runs: folder where classifiers trained on demand are kept.
        mean: normalisation of weights that come without one.
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

    def find(self, spec: str) -> Named:
        """The classifier that `spec` stands for, measured on training images.

        Args:
            spec: a run's folder, a JSON card, `architecture:weights`, or an architecture to be trained first:
                naturally, or by the recipe after an @, as in `tinyresnet@trades`; `@random` leaves it untrained.

        Raises:
            InputError: nothing answers to it, its files are damaged, or it is near chance on clean images.
        """
        found = self.look_up(spec)
        if not self.allow_weak:
            measure(found.name, found.network, sample(self.split("train"), 500, seed=0))
        return found

    def look_up(self, spec: str) -> Named:
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
            return _of_card(path, card["name"], spec, **shape)
        if path.is_dir():
            return self._of_run(path)
        if colon:
            return self._of_weights(name, Path(weights), spec)
        architecture, _, recipe = spec.partition("@")
        if architecture in classifiers.ARCHITECTURES and recipe == "random":
            return Named(spec, spec, new_classifier(architecture, self.split("train"), self.seed), architecture)
        if architecture in classifiers.ARCHITECTURES:
            return self._trained(architecture, recipe or "natural")
        if path.is_file():
            raise InputError(
                f"{spec} is a file of weights: say of which architecture, as ARCHITECTURE:{spec}; a network of a class "
                "of your own is judged from Python, with forefend.evaluate."
            )
        raise unknown(spec, classifiers.ARCHITECTURES, "run, JSON card or architecture")

    def _of_run(self, folder: Path) -> Named:
        if not (folder / "classifier.json").exists():
            raise InputError(f"{folder} holds no classifier: it has no classifier.json; did its training end?")
        return _of_card(folder / "classifier.json", folder.name, str(folder))

    def _of_weights(self, architecture: str, weights: Path, spec: str) -> Named:
        channels, size, _ = self.split("test").shape
        network = load_weights(
            architecture,
            weights,
            mean=self.mean,
            std=self.std,
            channels=channels,
            size=size,
        )
        return Named(weights.stem, spec, network, architecture, self.mean, self.std)

    def _trained(self, architecture: str, name: str) -> Named:
        """Train an architecture with a recipe, or take it from the runs where that was done before."""
        images = self.split("train")
        recipe = choose(name, RECIPES, "recipe")(epochs=10)  # type: ignore[call-arg]
        folder = self.runs / f"{name}-{images.name}-{architecture}-s{self.seed}"
        if not (folder / "classifier.json").exists():
            print(f"training {architecture} on {images.name} first ({name}), kept in {folder}", flush=True)
            config = training_config(name, recipe, images, self.seed) | {"classifier": architecture}
            network = new_classifier(architecture, images, self.seed)
            recipe.players(Cast(classifier=network))  # refuses a recipe that needs more than a classifier
            run = records.start(folder, config)
            cast, accelerator = Cast(classifier=network), accelerator_on(self.device)
            fit(recipe, images, cast, run=run, seed=self.seed, augment=self.augment, accelerator=accelerator)
            save_classifier(folder, network, architecture, images)
        shown = architecture if name == "natural" else f"{architecture}@{name}"
        return Named(shown, str(folder), self._of_run(folder).network, architecture)


def _of_card(card: Path, name: str, spec: str, **shape: int) -> Named:
    return Named(name, spec, load_card(card, **shape), read_card(card)["architecture"])


def measure(name: str, network: nn.Module, images: Images) -> float:
    """The clean accuracy of a classifier, in [0, 1].

    Raises:
        InputError: it does not return logits, or it is near chance.
    """
    network = frozen(network)
    x, y, _ = images.batch(torch.arange(len(images)))
    with torch.no_grad():
        check_classifier(network, x[:2], len(images.classes), name)
        right = sum(
            int((network(a).argmax(1) == b).sum().item()) for a, b in zip(x.split(250), y.split(250), strict=True)
        )
    accuracy = right / len(images)
    check_clean_accuracy(accuracy, len(images.classes), len(images), name)
    return accuracy


def new_classifier(architecture: str, images: Images, seed: int) -> Normalised:
    """An untrained classifier for a data set, normalising by that set's own mean and deviation.

    Raises:
        InputError: no such architecture, or one that does not take images of this size.
    """
    channels, size, _ = images.shape
    mean, std = moments(images)
    build = partial(classifiers.build, architecture, channels=channels, classes=len(images.classes), size=size)
    return Normalised(initialised(build, seed), mean, std)


def initialised(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network whose weights are drawn with the seed; torch's generator is given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Draw(torch.empty(0), seed, "initialise").number() % 2**31)
        return build()


def moments(images: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over (a sample of) the training images, in [0, 1]-pixel units."""
    x, _, _ = sample(images, 5000, seed=0).batch(torch.arange(min(5000, len(images))))
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    return [round(float(m), 4) for m in mean], [round(max(float(s), 1e-3), 4) for s in std]


def save_classifier(folder: Path, network: nn.Module, architecture: str, images: Images) -> None:
    """Write `weights.safetensors` and `classifier.json`, a card that loads as any other."""
    if not isinstance(network, Normalised):
        raise TypeError("Only a Normalised classifier has a card.")
    tensors = {name: tensor.contiguous().cpu() for name, tensor in network.network.state_dict().items()}
    records.write(folder / "weights.safetensors", save(tensors, metadata={"format": "pt"}))
    channels, size, _ = images.shape
    card = {
        "architecture": architecture,
        "weights": "weights.safetensors",
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "channels": channels,
        "classes": len(images.classes),
        "size": size,
    }
    records.write_json(folder / "classifier.json", card)


def training_config(name: str, recipe: Recipe, images: Images, seed: int) -> dict[str, Any]:
    """What every training run's config says."""
    return {
        "recipe": name,
        "settings": recipe.settings(),
        "data": images.name,
        "images": len(images),
        "seed": seed,
    }
