"""The settings of the robustifier's study, in l∞ and in l2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forefend.studies.attacks import AttackSpec
from forefend.studies.setting import FAST, SCALES, Setting
from forefend.training.config import TrainingConfig

STEPS = {"Linf": (0.008 / 0.031, 0.004 / 0.031, 0.0015 / 0.031), "L2": (0.125, 0.0625, 0.025)}  # shares of the radius


def _attacks(threat: str, steps: int, restarts: int, sizes: int = 3) -> dict[str, AttackSpec]:
    """The attacks of section S.1, in each of its step sizes, and of section S.2 on averages over noise."""
    shares = STEPS[threat.partition(":")[0]][:sizes]
    found = {
        f"PGD step {number}": AttackSpec("pgd", threat, {"steps": steps, "step": share, "restarts": restarts})
        for number, share in enumerate(shares)
    }
    smoothed = AttackSpec("pgd", threat, {"steps": 5 * steps // 2, "step": 1 / steps, "restarts": 2, "eot": 1})
    more = {"AA": AttackSpec("autoattack", threat), "fast": AttackSpec("fast", threat), "smoothed PGD": smoothed}
    return found | more


@dataclass(frozen=True)
class Grid:
    """What a scale runs of the grids of coefficients, noise and ensembles.

    Args:
        betas: values of β in Figure 1.
        gammas: values of γ in Figures 1 and S.3.
        wide: values of β in Figure S.3.
        sigmas: noise of denoised smoothing.
        copies: noisy copies that are averaged.
        ensembles: numbers of guides.
    """

    betas: Sequence[float]
    gammas: Sequence[float]
    wide: Sequence[float]
    sigmas: Sequence[float]
    copies: int
    ensembles: Sequence[int]


def _both(setting: Setting, threats: Mapping[str, tuple[str, dict[str, AttackSpec]]]) -> dict[str, Setting]:
    """The setting in l∞ and in l2."""
    return {norm: replace(setting, threat=threat, attacks=attacks) for norm, (threat, attacks) in threats.items()}


DEFENDED = ("ResNet-18", "ResNet-34", "ResNet-50", "DenseNet-121", "VGG-16")
DIGITS = Setting(
    data="digits",
    train=200,
    test=20,
    threat="",
    networks=dict(zip(DEFENDED, ("tinyresnet", "cnn", "tinyresnet", "mlp", "cnn"), strict=True))
    | dict.fromkeys(("S = 4", "S = 8", "S = 16", "denoiser"), "narrow-unet"),
    recipes={
        "natural": {"epochs": 4, "batch_size": 32},
        "robustifier": {"epochs": 1, "steps": 1, "relative_step": 1.0, "batch_size": 64},
        "denoised-smoothing": {"epochs": 1, "batch_size": 64},
    },
    differs="8 × 8 digits in seconds, other attacks: it shows only that the study runs",
)
FASHION = Setting(
    data="fashion-mnist",
    train=5000,
    test=500,
    threat="",
    networks=dict(zip(DEFENDED, ("fastat", "smallcnn", "cnn", "aaa-b", "tinyresnet"), strict=True))
    | dict.fromkeys(("S = 4", "S = 8", "S = 16"), "ape-gan")
    | {"denoiser": "narrow-dncnn"},
    recipes={
        "natural": {"epochs": 10},
        "robustifier": {"epochs": 4, "batch_size": 32, "lr": 0.02},
        "denoised-smoothing": {"epochs": 3, "batch_size": 64},
    },
    few={"fast": 200, "AA": 50, "smoothed PGD": 50},
    added=("fast",),
    training=TrainingConfig.recommended,
    differs="Fashion-MNIST at l∞ 0.1 and l2 1.5, 5,000 training images, the autoencoder of APE-GAN for every scale "
    "factor, small classifiers (ResNet-18: `fastat`), 4 epochs with the recommended options of training; PGD-20 in one "
    f"step size; 500 test images, 200 for `fast`, 50 for AA and denoised smoothing (a narrow DnCNN); {FAST}",
)
CIFAR = Setting(
    data="cifar-10",
    train=None,
    test=None,
    threat="",
    networks=dict(zip(DEFENDED, ("resnet18", "resnet34", "resnet50", "densenet121", "vgg16"), strict=True))
    | {f"S = {scale}": f"robustifier-{scale}" for scale in (4, 8, 16)}
    | {"denoiser": "dncnn"},
    recipes={"natural": {"epochs": 100}},
    differs="the natural training of the classifiers is ours; l2 steps are 2.5 ε / 20 and less",
)
NORMS = {
    "smoke": _both(
        DIGITS,
        {
            "l∞": ("Linf:0.1", _attacks("Linf:0.1", 2, 1, 1) | {"AA": AttackSpec("fgsm", "Linf:0.1")}),
            "l2": ("L2:0.5", _attacks("L2:0.5", 2, 1, 1) | {"AA": AttackSpec("fgsm", "L2:0.5")}),
        },
    ),
    "cpu": _both(
        FASHION,
        {"l∞": ("Linf:0.1", _attacks("Linf:0.1", 20, 1, 1)), "l2": ("L2:1.5", _attacks("L2:1.5", 20, 1, 1))},
    ),
    "paper": _both(
        CIFAR,
        {"l∞": ("Linf:0.031", _attacks("Linf:0.031", 20, 5)), "l2": ("L2:0.5", _attacks("L2:0.5", 20, 5))},
    ),
}
GAMMAS = (5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0)
SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
GRIDS = dict(
    zip(
        SCALES,
        (
            Grid((15.0,), (5.0, 30.0), (15.0,), (0.25,), 2, (1, 2)),
            Grid((10.0, 15.0), (5.0, 15.0, 30.0, 50.0), (5.0, 15.0), (0.1, 0.25, 0.5), 4, (1, 2, 4)),
            Grid((10.0, 15.0), GAMMAS, (1.0, 5.0, 10.0, 15.0), SIGMAS, 16, (1, 2, 4, 20)),
        ),
        strict=True,
    )
)
FEW_LAYERS: dict[str, dict[str, Any]] = {"four stages": {}, "and the final layer": {"logits_too": True}}
