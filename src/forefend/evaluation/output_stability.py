"""Notice a network whose answers move while it is evaluated, by state that is no tensor of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from forefend.checks import InputError
from forefend.evaluation.model_checks import ROUNDING, relative_difference, repeats, seeded_outputs


@dataclass(frozen=True)
class StableOutputs:
    """What a network answers for a few images when its evaluation begins.

    Args:
        network: images to logits, frozen.
        x: a few images, on its device.
        name: the network's, for the message.
    """

    network: nn.Module
    x: Tensor
    name: str
    first: Tensor | None = field(init=False)  # None where equal calls differ from the beginning

    def __post_init__(self) -> None:
        stable = repeats(self.network, self.x)
        object.__setattr__(self, "first", seeded_outputs(self.network, self.x) if stable else None)

    def check(self) -> None:
        """Refuse results of a network that answers otherwise by now; call it before they are recorded.

        Raises:
            InputError: the outputs for the images differ from the first ones by more than rounding.
        """
        if self.first is None:
            return
        if relative_difference(seeded_outputs(self.network, self.x), self.first) > ROUNDING:
            raise InputError(
                f"{self.name} gives other logits for equal images than when its evaluation began, so that results "
                "would be of several networks: remove what its forward keeps from call to call."
            )
