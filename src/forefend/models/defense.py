"""Defense: a trained preprocessor with its card, and a classifier standing behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models import preprocessors
from forefend.models.classifiers import Normalized
from forefend.models.fingerprint import fingerprint
from forefend.models.guide import Guide
from forefend.runtime.files import read_json, write, write_json
from forefend.runtime.labels import labeled


@dataclass(frozen=True)
class DefenseCard:
    """What a defense is and what it was trained for; saved as `defense.json` beside the weights.

    Args:
        architecture: name on the preprocessors' shelf.
        settings: what rebuilds the architecture.
        threat: the threat model it was trained under, e.g. `Linf:8/255`.
        recipe: name of the recipe that trained it.
        data: name of the training data.
        guides: name and fingerprint of each guide; a classifier is seen if its fingerprint is here.
        ema: decay of the average over training's steps that the weights are; None where they are the last ones.
    """

    architecture: str
    settings: dict[str, Any] = field(default_factory=dict)
    threat: str = ""
    recipe: str = ""
    data: str = ""
    guides: list[dict[str, str]] = field(default_factory=list)
    ema: float | None = None


class Defense(nn.Module):
    """A preprocessor with its card: images `(B, C, H, W)` in [0, 1] to images of the same shape.

    Args:
        preprocessor: the network.
        card: what it is and what it was trained for.
    """

    def __init__(self, preprocessor: nn.Module, card: DefenseCard) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.card = card
        self.training = preprocessor.training

    def forward(self, x: Tensor) -> Tensor:
        """The images to hand to a classifier."""
        x_out: Tensor = self.preprocessor(x)
        return x_out

    def has_seen(self, classifier: nn.Module) -> bool:
        """Whether this very classifier was one of its guides, told by fingerprint.

        One behind a normalization that changes nothing, as a command reads it from a file, is the classifier itself.
        """
        network = classifier.classifier if isinstance(classifier, Guide) else classifier
        own = {fingerprint(network)}
        if isinstance(network, Normalized) and network.idle:
            own.add(fingerprint(network.network))
        return not own.isdisjoint(guide["fingerprint"] for guide in self.card.guides)

    def save(self, folder: str | Path) -> None:
        """Write `weights.safetensors` and `defense.json` into `folder`.

        Raises:
            InputError: the card does not build the preprocessor again, so that nobody could load it.
        """
        self._check_card()
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.preprocessor.state_dict().items()}
        write(Path(folder) / "weights.safetensors", save_tensors(tensors, metadata={"format": "pt"}))
        write_json(Path(folder) / "defense.json", asdict(self.card))

    def _check_card(self) -> None:
        """Refuse a card that builds another network."""
        card, shapes = self.card, {name: tensor.shape for name, tensor in self.preprocessor.state_dict().items()}
        try:
            with torch.device("meta"):
                twin = preprocessors.build(card.architecture, **card.settings)
            fits = shapes == {name: tensor.shape for name, tensor in twin.state_dict().items()}
        except TypeError:  # it lacks a setting
            fits = False
        if not fits:
            raise InputError(
                f"The card's architecture {card.architecture!r} with the settings {card.settings} is not the network "
                "to be saved: give Card(architecture, settings=preprocessor.settings), or take forefend.defense_of."
            )


class Defended(nn.Module):
    """A classifier behind a defense: images in [0, 1] in, logits out. It never clamps.

    A plain module that any attack library takes. The classifier is held as a frozen view: training or moving this
    module leaves the original's parameters, buffers, modes and gradient flags alone.

    Args:
        defense: a `Defense` or any preprocessor.
        classifier: images in [0, 1] to logits.
    """

    def __init__(self, defense: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.defense = defense
        self.classifier = classifier if isinstance(classifier, Guide) else Guide(classifier)
        self.training = defense.training  # what other libraries look at

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)`."""
        logits: Tensor = self.classifier(self.defense(x))
        return logits

    def requires_grad_(self, requires_grad: bool = True) -> Defended:
        """For the defense alone: an optimizer would move the weights that the classifier shares with the original."""
        self.defense.requires_grad_(requires_grad)
        return self


Knowledge = Callable[[nn.Module], nn.Module]  # from the preprocessor to what the attacker takes to stand in front


@labeled("full")
def full(preprocessor: nn.Module) -> nn.Module:
    """The attacker sees the whole pipeline."""
    return preprocessor


@labeled("oblivious")
def oblivious(preprocessor: nn.Module) -> nn.Module:
    """The attacker sees the classifier alone."""
    return nn.Identity()


def pipelines(preprocessor: nn.Module, guides: Sequence[nn.Module]) -> Callable[[Tensor], list[Tensor]]:
    """What an attacker of several defended guides sees: one preprocessing, then each guide's logits."""

    def f(x: Tensor) -> list[Tensor]:
        x_out = preprocessor(x)
        return [guide(x_out) for guide in guides]

    return f


def load(folder: str | Path) -> Defense:
    """The defense saved in a run or another folder, in eval mode.

    Raises:
        InputError: the folder holds no defense, or weights that are damaged or of another architecture.
    """
    folder = Path(folder)
    if not (folder / "defense.json").exists():
        raise InputError(f"{folder} holds no defense: it has no defense.json; was the training run to its end?")
    try:
        card = DefenseCard(**read_json(folder / "defense.json"))
        preprocessor = preprocessors.build(card.architecture, **card.settings)
    except TypeError as error:
        raise InputError(f"{folder}/defense.json is no defense's card ({error}): save the defense again.") from None
    try:
        preprocessor.load_state_dict(load_tensors((folder / "weights.safetensors").read_bytes()))
    except FileNotFoundError:
        raise InputError(f"{folder} has a defense.json but no weights.safetensors: copy the whole folder.") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}/weights.safetensors does not fit {card.architecture} ({reason}).") from None
    return Defense(preprocessor, card).eval()
