"""Attacks: each maximizes its loss inside its threat model.

Every attack is a frozen dataclass called as `attack(f, x, target, *, rng) -> x_adv`. What the attacker knows is never
an option: it is which `f` is handed in. Predictions and targets may be whatever the attack's loss takes.
"""

from __future__ import annotations
