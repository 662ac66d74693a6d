from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from forefend.evaluation.results import Result


@dataclass(frozen=True)
class Price:
    """What a contestant costs.

    Args:
        training_flops: operations spent on its training.
        forward_flops: operations of one image's forward pass.
        ms_alone: milliseconds of one image on its own.
        ms_batched: milliseconds an image in a batch of 64.
        parameters: that it adds to the classifier's.
        kilobytes: of 1024 bytes, of parameters and buffers added to the classifier's.
    """

    training_flops: float
    forward_flops: float
    ms_alone: float
    ms_batched: float
    parameters: int
    kilobytes: float


@dataclass(frozen=True)
class Row:
    """One contestant.

    Args:
        name: what the table calls it.
        attacked: how, in words.
        clean: accuracy without an attack.
        worst: accuracy under the worst of its attacks, image by image.
        price: what it costs.
        changed: whether the classifier's weights are other ones than before.
    """

    name: str
    attacked: str
    clean: Result
    worst: Result
    price: Price
    changed: bool

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
