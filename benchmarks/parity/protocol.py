"""The tasks, the variants of training and their folders, fixed before the runs that count."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from forefend.threat_models.lp import Linf

RUNS, RESULTS = Path("runs/parity"), Path("results/parity")
SEEDS = (0, 1, 2)
AUTOATTACKED = 1000  # test images under AutoAttack that a target requires


@dataclass(frozen=True)
class Task:
    """Data, guide and threat model of a comparison.

    Args:
        data: name of the data set.
        guide: its classifier, as on the command line.
        threat: of training and of the attacks.
        options: of `forefend train aaa`, the same for every variant.
        images: number of test images under PGD.
        epochs: of each variant.
        training_threats: of variants that train with another threat model; all are evaluated under `threat`.
        normalization: mean and standard deviation of the guide; empty for a trained run.
        autoattacked: number of test images under AutoAttack.
        batch: number of images attacked at once.
    """

    data: str
    guide: str
    threat: Linf
    options: str
    images: int
    epochs: dict[str, int]
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    training_threats: dict[str, Linf] = field(default_factory=dict)
    autoattacked: int = AUTOATTACKED
    batch: int = 250


FAITHFUL, FAST = "faithful", "fast-crafting"
EIGHTH, WARM, SMALL = "an-eighth", "an-eighth-warm", "an-eighth-small"
TWO, WIDE, DEEPENING, SMALLER = "an-eighth-two", "an-eighth-wide", "an-eighth-deepening", "an-eighth-smaller"
NOISED = "an-eighth-noised"
EIGHTHS = (EIGHTH, WARM, SMALL, TWO, WIDE, DEEPENING, SMALLER, NOISED)
ALONE = "alone"  # the classifier without a preprocessor, evaluated as seed 0
BF16 = "--attack-copy bf16 --precision bf16"
# PGD-10 takes 11 gradients per image, a single step 2, and the monitor of catastrophic overfitting 11 on 128 images per
# epoch (256 when the first three eighths were trained).
VARIANTS = {
    FAITHFUL: "",
    FAST: BF16,
    EIGHTH: f"{BF16} --inner-attack n-fgsm",
    WARM: f"{BF16} --inner-attack atta",
    SMALL: f"{BF16} --inner-attack atta --batch-size 16",
    TWO: f"{BF16} --inner-attack atta --atta-steps 1 1 1 2 --batch-size 16",
    WIDE: f"{BF16} --inner-attack atta --atta-steps 1 1 1 2 --batch-size 16",
    DEEPENING: f"{BF16} --inner-attack atta --atta-steps 1 2 3 --batch-size 16",
    SMALLER: f"{BF16} --inner-attack atta --batch-size 8",
    NOISED: f"{BF16} --inner-attack atta --atta-steps 2 3 --atta-noise 0.5 --batch-size 16",
}
FASHION = Task(
    data="fashion-mnist",
    guide="cnn",
    threat=Linf(0.2),  # the radius of the paper for this data set
    options="--preprocessor aaa-autoencoder --images 10000 --batch-size 32 --lr 0.004",
    images=5000,
    epochs={FAITHFUL: 7, FAST: 7, EIGHTH: 4, WARM: 4, SMALL: 4, TWO: 4},
)
CIFAR = Task(
    data="cifar-10",
    guide="resnet20:.data/classifiers/akamaster-cifar10-resnet20.th",
    threat=Linf(1 / 255),  # two cores are too slow for the radius of the paper, 8/255
    options="--preprocessor narrow-dncnn --mse-weight 1 --images 4000 --batch-size 16 --lr 0.001",
    images=2000,
    epochs={FAITHFUL: 4, FAST: 4, WIDE: 2},
    training_threats={WIDE: Linf(2 / 255)},
    normalization=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
TASKS = {
    "fashion-mnist": FASHION,
    # Guide and variants trained again on another processor: the weights differ, so that no run pairs with those above.
    "fashion-mnist-anew": replace(FASHION, images=AUTOATTACKED, epochs={FAITHFUL: 7, TWO: 4, DEEPENING: 3}),
    # Three times as long: do the eighths miss their target because training is so short?
    "fashion-mnist-longer": replace(FASHION, images=AUTOATTACKED, epochs={FAITHFUL: 21, DEEPENING: 9, NOISED: 8}),
    "cifar-10": CIFAR,
    # Trained again too, with another eighth. AutoAttack takes 20 s on one core for each image that it does not break.
    "cifar-10-anew": replace(
        CIFAR,
        epochs={FAITHFUL: 4, SMALLER: 2},
        training_threats={SMALLER: Linf(2 / 255)},
        autoattacked=200,
        batch=50,
    ),
}
COMMON = "--hold-out 0 --steps 10 --relative-step 0.25 --ema 0.99"


def folder_of(root: Path, task: str, variant: str, seed: int) -> Path:
    """Return the folder of one run, or of its results."""
    return root / task / f"{variant}-s{seed}"


def command(name: str, variant: str, seed: int) -> list[str]:
    """Return the arguments of `forefend` that train a run."""
    task = TASKS[name]
    threat = task.training_threats.get(variant, task.threat)
    arguments = f"train aaa --data {task.data} --guides {task.guide} --threat {threat} {COMMON} {task.options}"
    out = folder_of(RUNS, name, variant, seed)
    arguments += f" --epochs {task.epochs[variant]} {VARIANTS[variant]} --seed {seed} --out {out}"
    for option, numbers in zip(("--mean", "--std"), task.normalization, strict=True):
        arguments += f" {option} {' '.join(map(str, numbers))}" if numbers else ""
    return arguments.split()
