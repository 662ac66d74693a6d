"""The settings of JATP's study; the targets are named by how they were trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from forefend.studies.attacks import AttackSpec
from forefend.studies.networks import Published
from forefend.studies.setting import FAST, SCALES, Setting

STRATEGIES = {"TRADES": "trades", "Standard": "adversarial", "MMA": "mma-simple", "MART": "mart"}
ALPHAS, BETAS = (0.0, 1.0, 5.0, 10.0), (0.0, 1.0, 3.0, 10.0)


def _attacks(threat: str, radius: float, steps: int, moves: int) -> dict[str, AttackSpec]:
    """The attacks of section 4.2; steps are the paper's shares of 8/255.

    Args:
        threat: the threat model.
        radius: its radius.
        steps: of PGD and its relatives.
        moves: of the Wasserstein attack.
    """
    long, short = 0.01 * 255 / 8, 0.007 * 255 / 8
    return {
        "PGD": AttackSpec("pgd", threat, {"steps": steps, "step": long}),
        "DLR": AttackSpec("dlr", threat, {"steps": steps, "step": short}),
        "AA": AttackSpec("autoattack", threat),
        "FWA": AttackSpec("fwa", threat, {"steps": moves, "step": 0.01}),
        "TI-BIM": AttackSpec("ti-bim", threat, {"steps": steps, "step": short}),
        "BPDA": AttackSpec("bpda", threat, {"steps": steps, "step": long}),
        "fast": AttackSpec("fast", threat),
    }


def _recipes(targets: Mapping[str, Any], defenses: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The same hyper-parameters for all targets, and for all defenses; `more` has those of single recipes."""
    found = {recipe: dict(targets) for recipe in STRATEGIES.values()}
    found |= {recipe: dict(defenses) for recipe in ("ape-gan", "hgd", "nrp", "jatp", "jatp-prime")}
    return {recipe: found.get(recipe, {}) | dict(more.get(recipe, {})) for recipe in {*found, *more}}


DIGITS = Setting(
    data="digits",
    train=200,
    test=20,
    threat="Linf:0.1",
    networks=dict.fromkeys(STRATEGIES, "tinyresnet")
    | {"APE-G": "ape-gan"}
    | dict.fromkeys(("HGD", "NRP", "JATP"), "narrow-unet"),
    recipes=_recipes(
        {"epochs": 2, "steps": 1, "batch_size": 32},
        {"epochs": 1, "steps": 1, "relative_step": 1.0, "batch_size": 64},
        {"natural": {"epochs": 2}},
    ),
    attacks=_attacks("Linf:0.1", 0.1, 2, 1) | {"AA": AttackSpec("pgd", "Linf:0.1", {"steps": 3, "step": 0.5})},
    differs="8 × 8 digits in seconds, other attacks: it shows only that the study runs",
)
TARGETS: dict[str, str | Published] = {
    "TRADES": Published("smallcnn", "classifiers/trades-mnist-smallcnn-robust.pt"),
    **dict.fromkeys(("Standard", "MMA", "MART"), Published("fastat", "classifiers/fastat-mnist-fgsm-robust.pth")),
}
MNIST = Setting(
    data="mnist",
    train=5000,
    test=200,
    threat="Linf:0.3",
    networks=TARGETS | {"APE-G": "ape-gan"} | dict.fromkeys(("HGD", "NRP", "JATP"), "narrow-dncnn"),
    recipes=_recipes(
        {"epochs": 12, "steps": 7, "relative_step": 0.25, "lr": 0.005},
        {"epochs": 2, "steps": 3, "relative_step": 0.5, "batch_size": 32},
        {"ape-gan": {"lr": 1e-3}, "hgd": {"lr": 1e-3}, "nrp": {"lr": 1e-3}},
    ),
    attacks=_attacks("Linf:0.3", 0.3, 40, 20),
    few={"FWA": 50, "fast": 100},
    added=("fast",),
    continued=("mma-simple", "mart"),
    differs="MNIST at 0.3; the TRADES target is its authors' published network and the Standard one that of fast "
    "adversarial training (arXiv 2001.03994), from which MMA and MART continue in 12 epochs, as small networks stay at "
    "chance otherwise; "
    "HGD, NRP and JATP are narrow DnCNNs, trained on 5,000 images in 2 epochs of a 3-step attack; 200 test images, 100 "
    f"for `fast`, 50 for FWA; AutoAttack's numbers are the paper's alone; {FAST}",
)
PUBLISHED: dict[str, Any] = {
    "train": None,
    "test": None,
    "threat": "Linf:8/255",
    "networks": dict.fromkeys(STRATEGIES, "resnet18")
    | {"APE-G": "ape-gan", "HGD": "residual-unet", "NRP": "nrp-3", "JATP": "nrp-3"},
    "recipes": _recipes(
        {"steps": 10, "relative_step": 0.007 * 255 / 8, "epochs": 90, "milestones": (75 / 90,)},
        {},
        {"mart": {"epochs": 120, "milestones": (75 / 120, 90 / 120, 100 / 120)}, "nrp": {"threat": "Linf:16/255"}},
    ),
    "attacks": _attacks("Linf:8/255", 8 / 255, 40, 20),
    "seeds": (0, 1, 2),
    "differs": "40 steps of the inner attack, and the simplified MMA of the authors' later code",
}
CIFAR = Setting(data="cifar-10", **PUBLISHED)
SVHN = Setting(data="svhn", **PUBLISHED)
CIFARS = dict(zip(SCALES, (DIGITS, MNIST, CIFAR), strict=True))
SVHNS = {"smoke": replace(DIGITS, seeds=(1,)), "paper": SVHN}  # nothing small stands for it at the scale cpu
# The layers of the supplement's study: the ends of the target's stages.
TAPS = {
    "smoke": ("stages.0", "stages.1", "stages.2"),
    "cpu": ("relu2", "relu4"),
    "paper": ("stages.0", "stages.1", "stages.2", "stages.3"),
}
