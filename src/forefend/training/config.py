"""Options of a training run that do not depend on the recipe."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from forefend.checks import InputError, check_type, choose
from forefend.recipes.base import Recipe
from forefend.runtime.precision import PRECISIONS
from forefend.training.catastrophic_overfitting import Monitor, fall_back
from forefend.training.inner_attacks import AsPublished, InnerAttack


@dataclass(frozen=True)
class TrainingConfig:
    """Options of `fit`; the defaults are those of the papers.

    Args:
        attack_copy: precision of the copies that attacks see, `fp32` or `bf16`; None for the networks themselves,
            which held-out images always see.
        precision: precision of the networks in training, `fp32` or `bf16`; weights and losses are float32.
        ema: decay of an average of the weights over the steps, such as 0.995, which is validated and is the result;
            None for the last weights.
        inner_attack: replacement of the recipe's inner attack.
        monitor: detects catastrophic overfitting after each epoch; None for no monitor.
    """

    attack_copy: str | None = None
    precision: str = "fp32"
    ema: float | None = None
    inner_attack: InnerAttack = field(default_factory=AsPublished)
    monitor: Monitor | None = field(default_factory=Monitor)

    def check(self, recipe: Recipe) -> None:
        """Check the options, also against the recipe.

        Raises:
            InputError: an option is out of range, or does not apply to the recipe.
        """
        name = type(recipe).__name__
        for precision in (self.precision, self.attack_copy or "fp32"):
            choose(str(precision), PRECISIONS, "precision")
        check_type(self.inner_attack, InnerAttack, "inner_attack")
        check_type(self.monitor or Monitor(), Monitor, "monitor")
        if self.ema is not None and not (isinstance(self.ema, int | float) and 0 < self.ema < 1):
            raise InputError(f"The decay ema is {self.ema}, expected between 0 and 1, such as 0.995.")
        attack, monitor = recipe.inner_attack(), self.monitor_for(recipe)
        if monitor and attack is None:
            raise InputError(f"{name} has no inner attack, and the monitor requires one: use monitor=None.")
        if not recipe.inner_attack_replaceable:
            if monitor and monitor.on_detection is fall_back:
                raise InputError(f"The inner attack of {name} is fixed, and fall_back would change it: use stop.")
            if not isinstance(self.inner_attack, AsPublished):
                raise InputError(f"The inner attack of {name} is fixed: do not replace it.")
        if attack is not None:
            self.inner_attack.check(attack.threat)

    def monitor_for(self, recipe: Recipe) -> Monitor | None:
        """The monitor, if it applies to the recipe."""
        if self.monitor and self.monitor.single_steps_only and not uses_single_steps(recipe, self.inner_attack):
            return None
        return self.monitor

    def settings(self) -> dict[str, Any]:
        """The options as JSON values, without the monitor, which may change when training resumes."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name != "monitor"}


def uses_single_steps(recipe: Recipe, inner_attack: InnerAttack) -> bool:
    """Whether part of the training uses single steps of an attack that several can replace."""
    attack = recipe.inner_attack()
    return recipe.inner_attack_replaceable and attack is not None and inner_attack.uses_single_steps(attack.steps)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | float):
        return value
    return repr(value) if is_dataclass(value) else type(value).__name__
