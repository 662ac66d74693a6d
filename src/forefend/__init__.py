"""forefend: one removable network in front of frozen image classifiers, trained adversarially, measured honestly.

Images are float `(B, C, H, W)` in [0, 1]; classifiers return logits and hold their own normalisation.

    import forefend as ff

    defence = ff.load("runs/rtfe-fashion")
    safe = ff.Defended(defence, classifier)
    cells = ff.evaluate(safe, images, ff.suites.quick(ff.Linf("8/255")))

Names are looked up when first used, so that the command line need not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import attacks, classifiers, corruptions, data, losses, masking, preprocessors, recipes, suites, tables
    from .certificates import Smoothing
    from .certify import Smoothed, certify_images
    from .checks import InputError
    from .defence import Card, Defence, Defended, load
    from .draw import Draw
    from .evaluation import evaluate
    from .evidence import Finding
    from .fast import prepare
    from .guides import Guide, every, in_turn, sampled
    from .interrupt import Interrupted
    from .modes import fingerprint, frozen
    from .recipe import Batch, Cast, Player, Recipe
    from .subject import Subject
    from .summary import Cell
    from .threat import L2, Linf, ThreatModel
    from .train import fit
    from .trained import defence_of
    from .trial import Trial
    from .wasserstein import Wasserstein
    from .ways import Ways

_SHELVES = (
    *("attacks", "classifiers", "corruptions", "data", "losses", "masking", "preprocessors", "recipes", "suites"),
    "tables",
)
_HOMES = {
    "certificates": ("Smoothing",),
    "certify": ("Smoothed", "certify_images"),
    "checks": ("InputError",),
    "defence": ("Card", "Defence", "Defended", "load"),
    "draw": ("Draw",),
    "evaluation": ("evaluate",),
    "evidence": ("Finding",),
    "fast": ("prepare",),
    "interrupt": ("Interrupted",),
    "guides": ("Guide", "every", "in_turn", "sampled"),
    "modes": ("fingerprint", "frozen"),
    "recipe": ("Batch", "Cast", "Player", "Recipe"),
    "subject": ("Subject",),
    "summary": ("Cell",),
    "threat": ("L2", "Linf", "ThreatModel"),
    "train": ("fit",),
    "trained": ("defence_of",),
    "trial": ("Trial",),
    "wasserstein": ("Wasserstein",),
    "ways": ("Ways",),
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "L2",
    "Batch",
    "Card",
    "Cast",
    "Cell",
    "Defence",
    "Defended",
    "Draw",
    "Finding",
    "Guide",
    "InputError",
    "Interrupted",
    "Linf",
    "Player",
    "Recipe",
    "Smoothed",
    "Smoothing",
    "Subject",
    "ThreatModel",
    "Trial",
    "Wasserstein",
    "Ways",
    "attacks",
    "certify_images",
    "classifiers",
    "corruptions",
    "data",
    "defence_of",
    "evaluate",
    "every",
    "fingerprint",
    "fit",
    "frozen",
    "in_turn",
    "load",
    "losses",
    "masking",
    "prepare",
    "preprocessors",
    "recipes",
    "sampled",
    "suites",
    "tables",
]


def __getattr__(name: str) -> Any:
    if name in _SHELVES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
