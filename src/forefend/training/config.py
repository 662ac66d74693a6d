"""Ways: how a training is done, whatever the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from forefend.checks import InputError, choose
from forefend.recipes.base import Recipe
from forefend.runtime.precision import PRECISIONS
from forefend.threat_models.base import ThreatModel
from forefend.training.catastrophic_overfitting import Monitor, fall_back, threat_of
from forefend.training.crafting import Crafting, live
from forefend.training.ema import check_decay
from forefend.training.growing import FULL, Sizes
from forefend.training.inner_attacks import AS_PUBLISHED, InnerAttack

WHERE_SINGLE = Monitor()  # told from another such watch by being this very one


# Where the command line's names for a field are looked up, and what may stand there.
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "craft": ("crafting.CRAFTING", callable),
    "inner": ("inner.INNERS", lambda way: isinstance(way, InnerAttack)),
    "sizes": ("growing.SIZES", lambda way: isinstance(way, Sizes)),
}


@dataclass(frozen=True)
class TrainingConfig:
    """What `fit` does faster, averages or watches; the defaults are the papers'.

    Args:
        craft: what the attacks of each step see: `live` networks, or `prepared` stand-ins of theirs. Held-out images
            always see the networks themselves.
        precision: of the networks' arithmetic in the weights' step, `fp32` or `bf16`; weights and losses are float32.
        ema: decay of an average of the weights over the steps, such as 0.995, which the recipe validates and the
            networks hold in the end; None for their own weights.
        inner: what stands in the place of the recipe's inner attack.
        watch: looks for catastrophic overfitting after each epoch, and then stops or falls back: one of your own,
            whatever is trained; None for nobody; WHERE_SINGLE, which looks where a recipe is trained on single steps.
        sizes: which size the images of a step have; held-out images and the watch's always have their own.
    """

    craft: Crafting = live
    precision: str = "fp32"
    ema: float | None = None
    inner: InnerAttack = AS_PUBLISHED
    watch: Monitor | None = WHERE_SINGLE
    sizes: Sizes = FULL

    def check(self, recipe: Recipe) -> None:
        """Refuse what cannot be, or would be ignored: an attack for a recipe that asks for none, a watch over none.

        Raises:
            InputError: a way that does not go together with the recipe, or a decay out of range.
        """
        for name, (table, fits) in KINDS.items():
            way = getattr(self, name)
            if isinstance(way, str):
                raise InputError(
                    f"Ways were given the {name} {way!r}, a name, expected what it stands for: "
                    f"forefend.{table}[{way!r}]."
                )
            if not fits(way):
                raise InputError(f"Ways were given the {name} {way!r}, expected one such as those in forefend.{table}.")
        choose(str(self.precision), PRECISIONS, "precision")
        if not isinstance(self.watch, Monitor | None):
            raise InputError(f"Ways were given the watch {self.watch!r}, expected a forefend.collapse.Watch or None.")
        check_decay(self.ema)
        watch = self.watching(recipe)
        if watch is not None:
            threat_of(recipe)
            if watch.answer is fall_back and not recipe.asks_inner:
                raise InputError(
                    f"{type(recipe).__name__} runs its own attack alone, so that a collapse has nothing to fall back "
                    "to: let the watch stop it."
                )
        if self.inner is not AS_PUBLISHED and not recipe.asks_inner:
            raise InputError(f"{type(recipe).__name__} runs its own attack alone: leave --inner away.")
        threat = getattr(recipe, "threat", None)
        if isinstance(threat, ThreatModel):
            self.inner.check(threat)
        self.sizes.check_recipe(recipe)

    def watching(self, recipe: Recipe) -> Monitor | None:
        """Who looks for a collapse while this recipe is trained, if anybody does."""
        if self.watch is not WHERE_SINGLE:
            return self.watch
        return self.watch if takes_single_steps(recipe, self.inner) else None

    def settings(self) -> dict[str, Any]:
        """The fields that another training would differ in, as JSON values; who watches may change as it goes on."""
        return {f.name: _named(getattr(self, f.name)) for f in fields(self) if f.name != "watch"}


def _named(way: Any) -> Any:
    """A way as itself where JSON has such, by its numbers where it has any, else by its name."""
    if way is None or isinstance(way, str | float):
        return way
    return repr(way) if is_dataclass(way) else getattr(way, "__name__", type(way).__name__)


def takes_single_steps(recipe: Recipe, inner: InnerAttack) -> bool:
    """Whether some of its training is on the single steps of an attack that may be replaced by one of several."""
    steps, threat = getattr(recipe, "steps", None), getattr(recipe, "threat", None)
    return recipe.asks_inner and isinstance(threat, ThreatModel) and isinstance(steps, int) and inner.single(steps)


AS_THE_PAPERS = TrainingConfig()
