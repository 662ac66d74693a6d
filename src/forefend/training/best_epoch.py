"""The epoch whose weights are kept: that of the highest robust accuracy on held-out training images.

Robust accuracy often falls in late epochs while the training loss still does (Rice et al., 2002.11569).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.data import ImageDataset, split
from forefend.losses import Mean, ce
from forefend.recipes.base import Batch, no_attack
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.training.catastrophic_overfitting import accuracy_under

STEPS = 10  # of the attack that judges an epoch, of a quarter of the radius each


def hold_out(images: ImageDataset, share: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Return the images to train on, and those that judge each epoch.

    Args:
        images: training images.
        share: the held-out share, in (0, 1).
        seed: of the sample.

    Raises:
        InputError: test images, or the share leaves no image to judge an epoch, or none to train on.
    """
    count = round(share * len(images))
    if not 0 < count < len(images):
        raise InputError(
            f"keep_best={share:g} holds out {count} of {len(images)} training images, expected at least one, and one "
            "to train on: give another share, or more images."
        )
    return split(images, share, seed)


def judged(f: Callable[[Tensor], list[Tensor]], threat: ThreatModel, batches: Iterable[Batch]) -> dict[str, Any]:
    """Measure the accuracy on held-out images, clean and under PGD, over all guides.

    Args:
        f: images to the logits of each guide behind the preprocessor, or of the classifier in training.
        threat: the recipe's threat model.
        batches: the images.

    Returns:
        The accuracies `clean` and `robust`, in [0, 1], the number of `images` and the `attack`.
    """
    attack = PGD(threat, STEPS, threat.radius / 4, loss=Mean(ce))
    clean, robust, images = 0.0, 0.0, 0
    for batch in batches:
        clean += len(batch.x) * accuracy_under(no_attack, f, batch)
        robust += len(batch.x) * accuracy_under(attack, f, batch)
        images += len(batch.x)
    return {"clean": clean / images, "robust": robust / images, "images": images, "attack": str(attack)}


def keep(state: TrainState, accuracy: dict[str, Any], networks: nn.ModuleList, epoch: int) -> None:
    """Copy the weights into the state if robust accuracy is the highest so far; the later of equals is kept.

    Args:
        state: holds the best weights so far, and what was measured with them.
        accuracy: what `judged` returned.
        networks: the networks in training, with the weights that were judged.
        epoch: number of completed epochs.
    """
    if accuracy["robust"] >= state.best_score:
        state.best_score, state.best = accuracy["robust"], {"epoch": epoch, **accuracy}
        state.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in networks.state_dict().items()}
