"""Attacks: each maximises its loss inside its threat model.

Every attack is a frozen dataclass called as `attack(f, x, target, *, draw) -> x_adv`. What the attacker knows is never
an option: it is which `f` is handed in. Predictions and targets may be whatever the attack's loss takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from ..draw import Draw


class Attack(Protocol):
    """What every attack is."""

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, draw: Draw) -> Tensor:
        """Adversarial images for `x`, `(B, C, H, W)` in [0, 1], allowed by the attack's threat model."""
