"""The settings of AAA's study."""

from __future__ import annotations

from typing import Any

from forefend.recipes.aaa import AAA
from forefend.recipes.base import Recipe
from forefend.studies.attacks import AttackSpec
from forefend.studies.setting import FAST, SCALES, Setting, as_published
from forefend.training.config import TrainingConfig


def _attacks(threat: str, steps: int, step: float, restarts: int, **more: Any) -> dict[str, AttackSpec]:
    """The attacks of sections 4 to 6; `step` is a share of the radius."""
    pgd = {"steps": steps, "step": step, "restarts": restarts}
    return {
        "PGD": AttackSpec("pgd", threat, pgd | more),
        "CW single": AttackSpec("cw", threat, {"reading": "single c100"}),
        "CW search": AttackSpec("cw", threat, {"reading": "search c100"}),
        "PGD with reconstruction": AttackSpec(
            "adaptive", threat, {"name": "PGD with reconstruction", "restarts": min(restarts, 10)}
        ),
        "latent": AttackSpec("adaptive", threat, {"name": "latent", "restarts": min(restarts, 10)}),
        "BPDA": AttackSpec("bpda", threat, pgd),
        "fast": AttackSpec("fast", threat),
    }


DIGITS = Setting(
    data="digits",
    train=400,
    test=40,
    threat="Linf:0.15",
    networks={"A": "cnn", "B": "tinyresnet", "C": "mlp", "native": "cnn", "transfer": "mlp", "D": "cnn"}
    | {"E": "tinyresnet", "F": "mlp", "autoencoder": "aaa-autoencoder"},
    recipes={
        "natural": {"epochs": 3},
        "adversarial": {"epochs": 2, "steps": 2, "relative_step": 0.5, "optimizer": "adam", "lr": 2e-3},
        "aaa": {"epochs": 5, "steps": 1, "relative_step": 1.0, "batch_size": 32, "lr": 5e-3},
        "hgd": {"epochs": 4, "steps": 2, "relative_step": 0.5, "batch_size": 64},
    },
    attacks=_attacks("Linf:0.15", 5, 0.5, 1)
    | {
        "CW single": AttackSpec("pgd", "L2:1", {"steps": 5, "step": 0.5}),
        "CW search": AttackSpec("pgd", "L2:1", {"steps": 10, "step": 0.5}),
        "PGD with reconstruction": AttackSpec("bpda", "Linf:0.15", {"steps": 5, "step": 0.5}),
        "latent": AttackSpec("bpda", "Linf:0.15", {"steps": 3, "step": 0.5}),
    },
    differs="8 × 8 digits in seconds, other attacks: it shows only that the study runs",
)
CPU_RECIPES: dict[str, dict[str, Any]] = {
    "natural": {"epochs": 10},
    "adversarial": {"epochs": 12, "steps": 7, "batch_size": 64, "optimizer": "adam", "lr": 1e-3},
    "aaa": {"epochs": 6, "steps": 5, "relative_step": 0.3, "batch_size": 64, "lr": 2e-3},
    "hgd": {"epochs": 6, "steps": 5, "relative_step": 0.3, "batch_size": 64, "lr": 2e-3},
}
FEW = {"fast": 250, "CW single": 200, "CW search": 100, "latent": 200, "PGD with reconstruction": 200, "BPDA": 200}
SMALL = (
    "5,000 training images in 6 epochs, an inner attack of 5 steps, Adam at 2e-3; adversarial training continues from "
    "the natural classifier, as small networks do not leave chance otherwise, in 12 epochs of a 7-step attack; "
    "PGD-100 has 2 starts, and every iterate counts; 1,000 test images, for `fast` 250, for CW single "
    f"200, for CW search 100; {FAST}"
)


def _recommended(recipe: Recipe) -> TrainingConfig:
    """The recommended options for AAA, and those of the papers for what it is compared with."""
    return TrainingConfig.recommended(recipe) if isinstance(recipe, AAA) else as_published(recipe)


MNIST_CPU = Setting(
    data="mnist",
    train=5000,
    test=500,
    threat="Linf:0.3",
    networks={"A": "fastat", "B": "aaa-b", "C": "aaa-c", "autoencoder": "ape-gan"},
    recipes=CPU_RECIPES | {"aaa": CPU_RECIPES["aaa"] | {"batch_size": 32}},
    attacks=_attacks("Linf:0.3", 100, 1 / 30, 2, until_lost=True),
    few={"fast": 250, "CW single": 100, "CW search": 30, "latent": 100, "PGD with reconstruction": 100, "BPDA": 100},
    added=("fast",),
    continued=("adversarial",),
    training=_recommended,
    differs="A is a small CNN (`fastat`), and the autoencoder has batch normalization (`ape-gan`), as the usual one "
    "ends at black images in so short a training: 5,000 images in 6 epochs with the recommended options of training, "
    "Adam at 2e-3; adversarial training continues from the natural classifier, as small networks do not leave chance "
    "otherwise, in 12 epochs of a 7-step attack; PGD-100 has 2 starts, and every iterate counts; 500 test images, for "
    f"`fast` 250, for CW single 100, for CW search 30; {FAST}",
)
FASHION_CPU = Setting(
    data="fashion-mnist",
    train=5000,
    test=1000,
    threat="Linf:0.2",
    networks={"native": "fastat", "transfer": "aaa-c", "autoencoder": "aaa-autoencoder"},
    recipes=CPU_RECIPES,
    attacks=_attacks("Linf:0.2", 100, 1 / 20, 2, until_lost=True),
    few=FEW,
    added=("fast",),
    continued=("adversarial",),
    differs=f"the native classifier is a small CNN (`fastat`); {SMALL}",
)
CIFAR_CPU = Setting(
    data="cifar-10",
    train=5000,
    test=500,
    threat="Linf:8/255",
    networks={"D": "tinyresnet", "E": "cnn", "F": "aaa-f", "autoencoder": "narrow-unet"},
    recipes=CPU_RECIPES,
    attacks=_attacks("Linf:8/255", 20, 0.25, 2, until_lost=True),
    added=("fast",),
    continued=("adversarial",),
    differs="D is a residual network of 3 blocks, E a small CNN (`cnn`); 5,000 training images, 500 test images; an "
    "inner attack of 5 steps (7 in adversarial training, which continues from the natural classifier); PGD-20 has 2 "
    f"starts, and every iterate counts; {FAST}",
)
MADRY_MNIST: dict[str, Any] = {"steps": 40, "epochs": 83, "batch_size": 50, "optimizer": "adam", "lr": 1e-4}
NATURAL: dict[str, Any] = {"epochs": 40}
MNIST = Setting(
    data="mnist",
    train=None,
    test=None,
    threat="Linf:0.3",
    networks={"A": "madry-mnist", "B": "aaa-b", "C": "aaa-c", "autoencoder": "aaa-autoencoder"},
    recipes={"natural": NATURAL, "adversarial": MADRY_MNIST | {"relative_step": 1 / 30}, "hgd": {"epochs": 20}},
    attacks=_attacks("Linf:0.3", 100, 1 / 30, 50),
    differs="the autoencoder, B and C are described in words only; λ and the epochs are ours",
)
FASHION = Setting(
    data="fashion-mnist",
    train=None,
    test=None,
    threat="Linf:0.2",
    networks={"native": "zheng", "transfer": "aaa-c", "autoencoder": "aaa-autoencoder"},
    recipes={"natural": NATURAL, "adversarial": MADRY_MNIST | {"relative_step": 0.05}, "aaa": {"relative_step": 0.05}},
    attacks=_attacks("Linf:0.2", 100, 0.05, 50),
    differs="the autoencoder and the transfer classifier are described in words only; λ and the epochs are ours",
)
CIFAR = Setting(
    data="cifar-10",
    train=None,
    test=None,
    threat="Linf:8/255",
    networks={"D": "madry-cifar", "E": "vgg19", "F": "aaa-f", "autoencoder": "robustifier-8"},
    recipes={
        "natural": {"epochs": 100},
        "adversarial": {"steps": 10},
        "aaa": {"steps": 10, "relative_step": 0.25, "epochs": 100},
    },
    attacks=_attacks("Linf:8/255", 20, 0.25, 10),
    differs="the U-Net and F are described in words only; λ and the epochs are ours",
)
MNISTS = dict(zip(SCALES, (DIGITS, MNIST_CPU, MNIST), strict=True))
FASHIONS = dict(zip(SCALES, (DIGITS, FASHION_CPU, FASHION), strict=True))
CIFARS = dict(zip(SCALES, (DIGITS, CIFAR_CPU, CIFAR), strict=True))
