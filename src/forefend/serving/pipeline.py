"""What is served: a classifier, the defense in front of it, and the images that they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from forefend.checks import InputError, check_finite
from forefend.evaluation.model_checks import depends_on_batch, is_random
from forefend.models.classifiers.black_box import black_box_in
from forefend.models.classifiers.resized import Resized
from forefend.models.defended import Defended
from forefend.models.defense import Defense
from forefend.models.fingerprint import fingerprint
from forefend.models.freezing import device_of, frozen
from forefend.models.given_images import kept_state
from forefend.models.output_checks import check_classifier, check_preprocessor, output_of
from forefend.runtime.precision import full_float32


@dataclass(frozen=True)
class Answer:
    """What is known of one image.

    Args:
        processed: what the defense made of it, `(C, H, W)`, on the CPU.
        defended: logits of the classifier for it, `(K,)`.
        bare: logits for the image itself; None where they were not asked for.
    """

    processed: Tensor
    defended: Tensor
    bare: Tensor | None


@dataclass(frozen=True)
class Pipeline:
    """A classifier behind its defense, ready to answer; `pipeline` makes one.

    Args:
        defense: the defense.
        network: a frozen view of the classifier, images in [0, 1] to logits.
        name: of the classifier.
        classes: their names, in the order of the logits.
        shape: channels, height and width of an image.
        any_size: whether the classifier resizes images itself.
        alone: False for a classifier that was trained together with the defense, and means nothing without it.
        random: whether equal images may get different answers.
    """

    defense: Defense
    network: nn.Module
    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    any_size: bool
    alone: bool
    random: bool = False

    @property
    def scores(self) -> bool:
        """Whether the classifier returns more than labels."""
        box = black_box_in(self.network)
        return box is None or box.outputs != "labels"

    @property
    def identity(self) -> str:
        """The fingerprint of the classifier."""
        return fingerprint(self.network)

    def answers(self, images: Sequence[Tensor], bare: Sequence[bool]) -> list[Answer]:
        """Return the answer for each image, `(C, H, W)` in [0, 1]; images of one size are computed together.

        Args:
            images: on the CPU.
            bare: for each image, whether the classifier is also asked without the defense.

        Raises:
            InputError: the networks cannot compute an image, or return NaN.
        """
        found: dict[int, Answer] = {}
        for shape in dict.fromkeys(image.shape for image in images):
            rows = [row for row, image in enumerate(images) if image.shape == shape]
            x = torch.stack([images[row] for row in rows])
            found |= zip(rows, self._answers(x, [bare[row] for row in rows]), strict=True)
        return [found[row] for row in range(len(images))]

    @torch.inference_mode()
    def _answers(self, x: Tensor, bare: Sequence[bool]) -> list[Answer]:
        with full_float32():
            x = x.to(device_of(self.network))
            processed = output_of(self.defense, x, "The defense")
            defended = self._logits(processed)
            asked = torch.tensor(bare)
            alone: Iterator[Tensor] = iter(self._logits(x[asked]) if any(bare) else ())
        return [
            Answer(image, logits, next(alone) if ask else None)
            for image, logits, ask in zip(processed.cpu(), defended, bare, strict=True)
        ]

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = output_of(self.network, x, self.name).cpu()
        check_finite(logits, "The logits", "send another image, and report it to who runs this server")
        return logits


def pipeline(
    defense: Defense,
    classifier: nn.Module,
    name: str,
    shape: tuple[int, int, int],
    *,
    classes: Sequence[str] | None = None,
    any_size: bool = False,
    alone: bool = True,
) -> Pipeline:
    """Check that a defense and a classifier work together on images of a shape; both are left unchanged.

    Args:
        defense: the defense.
        classifier: images `(B, C, H, W)` in [0, 1] to logits `(B, K)`.
        name: of the classifier.
        shape: channels, height and width of an image.
        classes: their names; None numbers them.
        any_size: take images of other sizes, where the classifier resizes them itself.
        alone: whether the classifier means something without the defense.

    Raises:
        InputError: they do not fit the images or each other, change when they are called, or give an image other
            logits beside other images.
    """
    network, x = frozen(classifier), torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    x = x.to(device_of(network))
    channels = defense.card.settings.get("channels")
    if channels not in (None, shape[0]):
        raise InputError(f"The defense is for images of {channels} channels, and {name} for {shape[0]}: name another.")
    defended = Defended(defense, network)
    with kept_state(defended, name), torch.no_grad():
        check_preprocessor(defense, x)
        logits = output_of(network, x, name)
        count = logits.shape[-1] if isinstance(logits, Tensor) and logits.ndim else 0
        check_classifier(network, x, len(classes) if classes is not None else count, name)
        if depends_on_batch(defended, x):
            raise InputError(
                f"{name} behind the defense gives an image other logits beside other images, and the server answers "
                "several at once: give BatchNorm running statistics."
            )
        made = Pipeline(
            defense,
            network,
            name,
            tuple(map(str, range(count))) if classes is None else tuple(classes),
            shape,
            any_size and any(isinstance(m, Resized) and m.resize is not None for m in network.modules()),
            alone,
        )
        return replace(made, random=is_random(defended, x))
