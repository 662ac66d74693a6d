"""The settings of the study of robustness under transfer learning: the source data, then the target data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from forefend.studies.attacks import AttackSpec
from forefend.studies.setting import FAST, SCALES, Setting


def _attacks(threat: str) -> dict[str, AttackSpec]:
    pgd = AttackSpec("pgd", threat, {"steps": 7, "step": 0.25, "random": False})
    return {"FGSM": AttackSpec("fgsm", threat), "PGD": pgd, "fast": AttackSpec("fast", threat)}


DIGITS = Setting(
    data="digits",
    train=200,
    test=40,
    threat="Linf:0.1",
    networks={"network": "tinyresnet", "surrogate": "cnn"},
    recipes={
        "natural": {"epochs": 4, "batch_size": 32},
        "transfer": {"epochs": 1, "batch_size": 32},
        "source": {"epochs": 1, "batch_size": 32},
    },
    attacks=_attacks("Linf:0.1"),
    differs="8 × 8 digits in seconds: it shows only that the study runs",
)
MNIST = Setting(
    data="mnist",
    train=2500,
    test=1000,
    threat="Linf:0.1",
    networks={"network": "tinyresnet", "surrogate": "cnn"},
    recipes={
        "natural": {"epochs": 8, "batch_size": 32},
        "transfer": {"epochs": 4, "batch_size": 32},
        "source": {"epochs": 8, "batch_size": 32, "milestones": (0.5, 0.75)},
    },
    attacks=_attacks("Linf:0.1"),
    few={"fast": 300},
    added=("fast",),
    differs="from Fashion-MNIST to MNIST at 0.1, 2,500 training images, a residual network of 3 blocks (1 in the last "
    f"stage), 4 epochs (8 without a source), the surrogate is `cnn`; 1,000 test images, 300 for `fast`; "
    f"{FAST}",
)
LONG: dict[str, Any] = {"epochs": 200, "milestones": (0.5, 0.75)}
CIFAR_10 = Setting(
    data="cifar-10",
    train=None,
    test=None,
    threat="Linf:8/256",
    networks={"network": "resnet56", "surrogate": "densenet121-narrow"},
    recipes={"natural": {"epochs": 100}, "source": LONG},
    attacks=_attacks("Linf:8/256"),
    differs="images are normalized by the data's own moments; the natural training of the surrogate is ours",
)
TARGETS = dict(zip(SCALES, (DIGITS, MNIST, CIFAR_10), strict=True))
SOURCES = {
    "smoke": DIGITS,
    "cpu": replace(MNIST, data="fashion-mnist"),
    "paper": replace(CIFAR_10, data="cifar-100"),
}
