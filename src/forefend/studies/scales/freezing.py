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
    }


def _networks(own: str, unseen: str) -> dict[str, str]:
    return {"own": own, "unseen": unseen, "preprocessor": "narrow-unet", "autoencoder": "aaa-autoencoder"}


DIGITS = Setting(
    data="digits",
    train=200,
    test=20,
    threat="Linf:0.1",
    networks=_networks("tinyresnet", "mlp"),
    recipes={
        "natural": {"epochs": 8, "batch_size": 32},
        "denoised-smoothing": {"sigma": SIGMA},
        **{name: {"steps": 1, "relative_step": 1.0} for name in ("adversarial", "jat", "rtfe", "aaa", "robustifier")},
    },
    attacks=_attacks("Linf:0.1", 2, 1) | {"AA": AttackSpec("pgd", "Linf:0.1", {"steps": 3, "step": 0.5})},
    flops=4e9,
    differs="8 × 8 digits in seconds",
)
RECIPES: dict[str, dict[str, Any]] = {
    "natural": {"epochs": 10},
    "adversarial": {"steps": 7, "optimizer": "adam", "lr": 2e-3},
    "jat": {"steps": 7, "relative_step": 0.25},
    "rtfe": {"steps": 7},
    "aaa": {"steps": 7, "relative_step": 0.25, "lr": 2e-3},
    "robustifier": {"steps": 7, "relative_step": 0.25, "lr": 0.02},
    "denoised-smoothing": {"sigma": SIGMA},
}
FASHION = Setting(
    data="fashion-mnist",
    train=10_000,
    test=1000,
    threat="Linf:0.2",
    networks=_networks("tinyresnet", "fastat"),
    recipes=RECIPES,
    attacks=_attacks("Linf:0.2", 20, 2),
    few={"AA": 200, "smoothed": 200},
    flops=4e13,
    differs="own classifier: a residual network of 3 blocks, unseen: `fastat`; 10,000 training images, every training "
    "takes the same 40 TFLOP; PGD-20 with 2 starts on 1,000 test images, AA and smoothing on 200",
)
CIFAR = Setting(
    data="cifar-10",
    train=10_000,
    test=1000,
    threat="Linf:2/255",
    networks=_networks("tinyresnet", "aaa-f"),
    recipes=RECIPES,
    attacks=_attacks("Linf:2/255", 20, 2),
    few={"AA": 200, "smoothed": 200},
    flops=6e13,
    differs="own classifier: a residual network of 3 blocks, unseen: a CNN of 4 convolutions (`aaa-f`); 10,000 "
    "training images, every training takes the same 60 TFLOP; PGD-20 with 2 starts on 1,000 test images, AA and "
    "smoothing on 200",
)
FASHIONS = {"smoke": DIGITS, "cpu": FASHION}
CIFARS = {"smoke": DIGITS, "cpu": CIFAR}
