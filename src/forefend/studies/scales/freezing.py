"""The settings of the study of what freezing costs."""

from __future__ import annotations

from typing import Any

from forefend.studies.attacks import AttackSpec
from forefend.studies.setting import Setting

SIGMA, COPIES = 0.25, 8  # of denoised smoothing


def _attacks(threat: str, steps: int, restarts: int) -> dict[str, AttackSpec]:
    pgd: dict[str, Any] = {"steps": steps, "step": 2.5 / steps, "restarts": restarts}
    return {
        "PGD": AttackSpec("pgd", threat, pgd | {"until_lost": True}),
        "BPDA": AttackSpec("bpda", threat, pgd),
        "smoothed": AttackSpec("pgd", threat, pgd | {"eot": 1}),
        "AA": AttackSpec("autoattack", threat),
        "fast": AttackSpec("fast", threat),
    }


def _networks(own: str, unseen: str, preprocessor: str) -> dict[str, str]:
    return {"own": own, "unseen": unseen, "preprocessor": preprocessor, "autoencoder": "aaa-autoencoder"}


DIGITS = Setting(
    data="digits",
    train=200,
    test=20,
    threat="Linf:0.1",
    networks=_networks("tinyresnet", "mlp", "narrow-unet"),
    recipes={
        "natural": {"epochs": 8, "batch_size": 32},
        "denoised-smoothing": {"sigma": SIGMA},
        **{name: {"steps": 1, "relative_step": 1.0} for name in ("adversarial", "jat", "rtfe", "aaa", "robustifier")},
    },
    attacks=_attacks("Linf:0.1", 2, 1) | {"AA": AttackSpec("pgd", "Linf:0.1", {"steps": 3, "step": 0.5})},
    flops=4e9,
    differs="8 × 8 digits in seconds",
)
INNER: dict[str, Any] = {"steps": 2, "relative_step": 0.6}  # of every training that attacks
RECIPES: dict[str, dict[str, Any]] = {
    "natural": {"epochs": 10},
    "adversarial": INNER | {"optimizer": "adam", "lr": 2e-3},
    "jat": INNER | {"batch_size": 16, "lr": 1e-3},
    "rtfe": INNER | {"batch_size": 16, "lr": 0.02},
    "aaa": INNER | {"batch_size": 16, "lr": 2e-3},
    "robustifier": INNER | {"batch_size": 16, "lr": 0.02},
    "denoised-smoothing": {"sigma": SIGMA, "batch_size": 64},
}
SMALL = (
    "5,000 training images, an inner attack of 2 steps; PGD-20 on 400 test images, `fast` on 200, denoised smoothing "
    "on 50, AutoAttack on 30"
)
FASHION = Setting(
    data="fashion-mnist",
    train=5000,
    test=400,
    threat="Linf:0.2",
    networks=_networks("fastat", "cnn", "aaa-autoencoder"),
    recipes=RECIPES,
    attacks=_attacks("Linf:0.2", 20, 1),
    few={"fast": 200, "AA": 30, "smoothed": 50},
    added=("fast",),
    flops=2e12,
    differs=f"own classifier: `fastat`, unseen: `cnn`; every preprocessor is the autoencoder of AAA, and every "
    f"training takes the same 2 TFLOP; {SMALL}",
)
CIFAR = Setting(
    data="cifar-10",
    train=5000,
    test=400,
    threat="Linf:2/255",
    networks=_networks("tinyresnet", "aaa-f", "narrow-unet"),
    recipes=RECIPES,
    attacks=_attacks("Linf:2/255", 20, 1),
    few={"fast": 200, "AA": 30, "smoothed": 50},
    added=("fast",),
    flops=6e12,
    differs=f"own classifier: a residual network of 3 blocks, unseen: a CNN of 4 convolutions (`aaa-f`); every "
    f"training takes the same 6 TFLOP; {SMALL}",
)
FASHIONS = {"smoke": DIGITS, "cpu": FASHION}
CIFARS = {"smoke": DIGITS, "cpu": CIFAR}
