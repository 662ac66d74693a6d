"""Attacks: `x_adv = PGD("Linf:8/255")(model, x, y)`.

An attack is a frozen dataclass of its settings. What the attacker knows of a defended classifier depends on the `f`
that is attacked: the defended classifier itself, the classifier alone, `eot(…)` or `bpda(…)` of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forefend.attacks.apgd_rotation import APGDRotation
from forefend.attacks.auto_pgd import APGD, misclassified, never, noise_at_radius, targeted_dlr
from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.base import Attack, Iterative, input_gradient
from forefend.attacks.budget import Budgeted
from forefend.attacks.bug_examples import bug_loss, bugs, shared_features
from forefend.attacks.carlini_wagner import CarliniWagner, carlini_wagner, cw_search_c100, cw_single_c100
from forefend.attacks.decision_based import Boundary, HopSkipJump, Nearest
from forefend.attacks.eot_bpda import bpda, bpda_defended, eot
from forefend.attacks.feature_space import (
    AnotherClass,
    Features,
    WithTarget,
    clean,
    feature_attack,
    label_and_image,
    latent,
    latent_attack,
    reconstruction,
    reconstruction_attack,
)
from forefend.attacks.momentum import DiverseInput, GaussianBlur, Momentum, di_fgsm, mi_fgsm, ti_bim
from forefend.attacks.n_fgsm import NFGSM
from forefend.attacks.noise import Noise
from forefend.attacks.pgd import PGD, fgsm, from_x, noise_corner, random_start, small_noise
from forefend.attacks.square import Square
from forefend.attacks.wasserstein import FrankWolfeWasserstein, ProjectedWasserstein, at_random, at_x

# Attacks by name, each made from a threat model. A new attack is one file and one line here.
ATTACKS: dict[str, Callable[..., Any]] = {
    "apgd": APGD,
    "apgd-rotation": APGDRotation,
    "autoattack": AutoAttack,
    "boundary": Boundary,
    "cw": CarliniWagner,
    "di-fgsm": di_fgsm,
    "fgsm": fgsm,
    "hop-skip-jump": HopSkipJump,
    "mi-fgsm": mi_fgsm,
    "n-fgsm": NFGSM,
    "noise": Noise,
    "pgd": PGD,
    "square": Square,
    "ti-bim": ti_bim,
    "wasserstein": ProjectedWasserstein,
    "wasserstein-fw": FrankWolfeWasserstein,
}

# fmt: off
__all__ = [
    "APGD", "ATTACKS", "NFGSM", "PGD", "APGDRotation", "AnotherClass", "Attack", "AutoAttack", "Boundary",
    "Budgeted", "CarliniWagner", "DiverseInput", "Features", "FrankWolfeWasserstein", "GaussianBlur", "HopSkipJump",
    "Iterative", "Momentum", "Nearest", "Noise", "ProjectedWasserstein", "Square", "WithTarget", "at_random",
    "at_x", "bpda", "bpda_defended", "bug_loss", "bugs", "carlini_wagner", "clean", "cw_search_c100",
    "cw_single_c100", "di_fgsm", "eot", "feature_attack", "fgsm", "from_x", "input_gradient", "label_and_image",
    "latent", "latent_attack", "mi_fgsm", "misclassified", "never", "noise_at_radius", "noise_corner",
    "random_start", "reconstruction", "reconstruction_attack", "shared_features", "small_noise", "targeted_dlr",
    "ti_bim",
]
# fmt: on


def __dir__() -> list[str]:
    return __all__
