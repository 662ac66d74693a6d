"""Options of a training run that do not depend on the recipe."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from forefend.checks import InputError, as_integer, check_type, choose
from forefend.models.defended import full
from forefend.recipes.base import Recipe
from forefend.runtime.precision import PRECISIONS
from forefend.training.catastrophic_overfitting import Monitor, fall_back
from forefend.training.inner_attacks import ATTA, AsPublished, InnerAttack


@dataclass(frozen=True)
class TrainingConfig:
    """Options of `fit`; the defaults are those of the papers.

    Args:
        attack_copy: precision of the copies that attacks see, `fp32` or `bf16`; None for the networks themselves,
            which held-out images always see.
        precision: precision of the networks in training, `fp32` or `bf16`; weights and losses are float32.
        ema: decay of an average of the weights over the steps, such as 0.995, which is validated and is the result;
            None for the last weights.
        ema_statistics: number of training batches, at most those of an epoch, on which the BatchNorm statistics of
            that average are estimated anew whenever it is validated, and at the end; None averages them too.
        keep_best: share of the training images, in (0, 1), that is held out to measure robust accuracy after each
            epoch: the result is that of the best epoch. None for the last epoch.
        inner_attack: replacement of the recipe's inner attack.
        monitor: detects catastrophic overfitting after each epoch; None for no monitor.
    """

    attack_copy: str | None = None
    precision: str = "fp32"
    ema: float | None = None
    ema_statistics: int | None = None
    keep_best: float | None = None
    inner_attack: InnerAttack = field(default_factory=AsPublished)
    monitor: Monitor | None = field(default_factory=Monitor)

    @classmethod
    def recommended(cls, recipe: Recipe) -> TrainingConfig:
        """Return what we would train with: copies and arithmetic in bf16, an average, its best epoch, few steps.

        Where the device has no bf16 arithmetic, fp32 is used. Options that the recipe has no use for are left out, as
        `not_recommended` says; number of epochs, batch size and learning rate stay those of the recipe. The page "Train
        faster" says what each choice rests on.

        Args:
            recipe: the training method.
        """
        chosen: dict[str, Any] = {
            "attack_copy": "bf16",
            "precision": "bf16",
            "ema": 0.99,
            "ema_statistics": 20,
            "keep_best": 0.05,
            "inner_attack": ATTA(steps=(2, 3), noise=0.5),
        }
        return cls(**{name: value for name, value in chosen.items() if name not in not_recommended(recipe)})

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
        if self.ema_statistics is not None:
            self._check_statistics()
        if self.keep_best is not None:
            self._check_keep_best(recipe)
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

    def _check_statistics(self) -> None:
        if self.ema is None:
            raise InputError("ema_statistics belongs to an average of the weights: give ema, such as 0.995, too.")
        if as_integer(self.ema_statistics, "ema_statistics") < 1:
            raise InputError(f"ema_statistics is {self.ema_statistics}, expected at least one batch, such as 50.")

    def _check_keep_best(self, recipe: Recipe) -> None:
        name, share = type(recipe).__name__, self.keep_best
        if not (isinstance(share, int | float) and 0 < share < 1):
            raise InputError(f"keep_best is {share}, expected a share of the images above 0 and below 1, such as 0.05.")
        if recipe.keeps_best:
            raise InputError(f"{name} keeps its best epoch already, as its paper does: remove keep_best.")
        if recipe.inner_attack() is None:
            raise InputError(f"{name} has no attack, and keep_best compares epochs under one: remove keep_best.")

    def monitor_for(self, recipe: Recipe) -> Monitor | None:
        """The monitor, if it applies to the recipe."""
        if self.monitor and self.monitor.single_steps_only and not uses_single_steps(recipe, self.inner_attack):
            return None
        return self.monitor

    def settings(self) -> dict[str, Any]:
        """The options as JSON values, without the monitor, which may change when training resumes."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name != "monitor"}


def not_recommended(recipe: Recipe) -> dict[str, str]:
    """Return the options that a recipe has no use for, with the reason."""
    attack = recipe.inner_attack()
    if attack is None:
        return dict.fromkeys(("attack_copy", "keep_best", "inner_attack"), "it has no attack")
    reasons = {}
    if recipe.keeps_best:
        reasons["keep_best"] = "it keeps its best epoch already"
    elif getattr(recipe, "sees", full) is not full:
        reasons["keep_best"] = "it trains against attackers who do not know the defense, and PGD on the whole does"
    if not recipe.inner_attack_replaceable:
        reasons["inner_attack"] = "its attack is fixed"
    elif attack.threat.norm != "Linf":
        reasons["inner_attack"] = f"reused perturbations require l∞, and its threat model is {attack.threat}"
    elif attack.steps <= 3:
        reasons["inner_attack"] = f"its attack takes {attack.steps} steps"
    return reasons


def uses_single_steps(recipe: Recipe, inner_attack: InnerAttack) -> bool:
    """Whether part of the training uses single steps of an attack that several can replace."""
    attack = recipe.inner_attack()
    return recipe.inner_attack_replaceable and attack is not None and inner_attack.uses_single_steps(attack.steps)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | float | int):
        return value
    return repr(value) if is_dataclass(value) else type(value).__name__
