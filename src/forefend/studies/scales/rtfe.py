"""The settings of RTFE's study; attacks are named by the paper's radius in 8-bit units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from forefend.studies.attacks import AttackSpec
from forefend.studies.setting import FAST, SCALES, Setting
from forefend.training.config import TrainingConfig

RADII = (2, 4, 8, 16, 32)
READINGS = {"1.25ε": 1.25, "1.25ε/20": 1.25 / 20, "1.25ε/100": 1.25 / 100}  # of the step: three that the paper states


def attacks_of(threats: Sequence[str], steps: int, strong: int, restarts: int) -> dict[str, AttackSpec]:
    """The attacks at each of the paper's radii: of section 4, of appendix A, in each reading, on ensembles, and `fast`.

    Args:
        threats: the threat models for `RADII`.
        steps: of the attack of section 4.
        strong: steps of the strong attack of appendix A.
        restarts: of the strong attack.
    """
    found = {}
    for radius, threat in zip(RADII, threats, strict=True):
        usual = {"steps": steps, "step": 1.25 / steps}
        found[f"ε = {radius}"] = AttackSpec("pgd", threat, usual)
        found[f"weak, ε = {radius}"] = AttackSpec("pgd", threat, {"steps": 1, "step": 1.25})
        found[f"strong, ε = {radius}"] = AttackSpec(
            "pgd", threat, {"steps": strong, "step": 1.25 / strong, "restarts": restarts}
        )
        found[f"fast, ε = {radius}"] = AttackSpec("fast", threat)
        found[f"ensemble, ε = {radius}"] = AttackSpec("pgd-ensemble", threat, usual)
        for reading, share in READINGS.items():
            found[f"step {reading}, ε = {radius}"] = AttackSpec("pgd", threat, {"steps": steps, "step": share})
    return found | {"bugs": AttackSpec("bugs", threats[RADII.index(8)])}


SMALL_NETWORKS = {
    **{"ResNet18": "tinyresnet", "ResNet34": "resnet20", "ResNet50": "resnet32", "MobileNetV2": "cnn"},
    **{"SqueezeNet": "aaa-b", "VGG16": "fastat", "UNet": "narrow-unet", "DAE": "aaa-autoencoder"},
}
SMOKE_RECIPES: dict[str, dict[str, Any]] = {
    "natural": {"epochs": 8, "batch_size": 32},
    "adversarial": {"epochs": 1, "steps": 1, "relative_step": 1.0, "optimizer": "adam", "lr": 2e-3},
    "rtfe": {"epochs": 1, "steps": 1, "relative_step": 1.0},
    "jat": {"epochs": 1, "steps": 1, "relative_step": 1.0},
}
DIGITS = Setting(
    data="digits",
    train=200,
    test=20,
    threat="Linf:0.16",
    networks=SMALL_NETWORKS | {"ResNet34": "tinyresnet", "ResNet50": "cnn", "SqueezeNet": "mlp", "VGG16": "mlp"},
    recipes=SMOKE_RECIPES,
    attacks=attacks_of([f"Linf:{radius}" for radius in (0.04, 0.08, 0.16, 0.32, 0.64)], 2, 3, 1),
    differs="8 × 8 digits in seconds, other attacks: it shows only that the study runs",
)
CPU_RECIPES: dict[str, dict[str, Any]] = {
    "natural": {"epochs": 10},
    "adversarial": {"epochs": 12, "steps": 10, "relative_step": 0.25, "optimizer": "adam", "lr": 2e-3},
    "rtfe": {"epochs": 6, "steps": 10, "batch_size": 32, "lr": 0.05},
    "jat": {"epochs": 6, "steps": 10, "batch_size": 32, "lr": 5e-3},
}
FASHION = Setting(
    data="fashion-mnist",
    train=5000,
    test=500,
    threat="Linf:0.2",
    networks=SMALL_NETWORKS | {"ResNet18": "fastat", "VGG16": "tinyresnet", "UNet": "ape-gan"},
    recipes=CPU_RECIPES,
    attacks=attacks_of([f"Linf:{radius}" for radius in (0.05, 0.1, 0.2, 0.4, 0.8)], 20, 100, 2),
    few={f"strong, ε = {radius}": 100 for radius in RADII} | {f"fast, ε = {radius}": 200 for radius in RADII},
    added=("fast, ε = 8",),
    training=TrainingConfig.recommended,
    differs="Fashion-MNIST instead of CIFAR-10, radii of 0.05, 0.1 and 0.2 for 2, 4 and 8; 5,000 training images, "
    "small networks (ResNet18: `fastat`, MobileNetV2: `cnn`, SqueezeNet: `aaa-b`, VGG16: a residual network of 3 "
    "blocks) and the autoencoder of APE-GAN, 6 epochs (AT 12) with the recommended options of training; 500 test "
    f"images, 200 for `fast`, 100 for the strong attack of appendix A; {FAST}",
)
NETWORKS = {
    **{"ResNet18": "resnet18", "ResNet34": "resnet34", "ResNet50": "resnet50", "MobileNetV2": "mobilenetv2"},
    **{"SqueezeNet": "squeezenet", "VGG16": "vgg16", "UNet": "rtfe-unet", "DAE": "rtfe-autoencoder"},
}
PUBLISHED: dict[str, Any] = {
    "train": None,
    "test": None,
    "threat": "Linf:8/255",
    "networks": NETWORKS,
    "recipes": {"natural": {"epochs": 100}},
    "attacks": attacks_of([f"Linf:{radius}/255" for radius in RADII], 20, 100, 5),
    "seeds": (0, 1, 2, 3, 4),
    "differs": "the natural training of the guides is ours; the step of the attack is read as 1.25ε/20",
}
CIFAR_10, CIFAR_100 = Setting(data="cifar-10", **PUBLISHED), Setting(data="cifar-100", **PUBLISHED)
CIFARS_10 = dict(zip(SCALES, (DIGITS, FASHION, CIFAR_10), strict=True))
LATERAL = replace(  # the ablation of lateral connections takes a U-Net
    FASHION,
    networks=SMALL_NETWORKS | {"ResNet18": "fastat"},
    added=(),
    differs=f"{FASHION.differs.partition(' and the autoencoder')[0]}) and a narrow U-Net; 500 test images",
)
CIFARS_100 = {"smoke": DIGITS, "paper": CIFAR_100}  # nothing small stands for it at the scale cpu
