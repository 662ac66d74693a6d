"""What is trained, how, and where it lies: fixed before the runs that count were made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from forefend.threat_models.lp import Linf

RUNS, RESULTS = Path("runs/parity"), Path("results/parity")
SEEDS = (0, 1, 2)
AUTOATTACKED = 1000  # test images under AutoAttack, for a promise to be kept


@dataclass(frozen=True)
class Task:
    """What is defended, and against what.

    Args:
        data: the set.
        guide: its classifier, as the command line names it.
        threat: of training and of the attacks.
        options: of `forefend train aaa`, whatever the way.
        images: how many test images PGD attacks.
        epochs: of each way.
        widened: the radius that a way trains at instead, which then is attacked at the threat's own like the others.
        normalization: mean and standard deviation of the guide's weights; none for a run.
        autoattacked: how many test images AutoAttack attacks.
        batch: images attacked at once.
    """

    data: str
    guide: str
    threat: Linf
    options: str
    images: int
    epochs: dict[str, int]
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    widened: dict[str, Linf] = field(default_factory=dict)
    autoattacked: int = AUTOATTACKED
    batch: int = 250


FAITHFUL, FAST = "faithful", "fast-crafting"
EIGHTH, WARM, SMALL = "an-eighth", "an-eighth-warm", "an-eighth-small"
TWO, WIDE, DEEPENING, SMALLER = "an-eighth-two", "an-eighth-wide", "an-eighth-deepening", "an-eighth-smaller"
NOISED = "an-eighth-noised"
EIGHTHS = (EIGHTH, WARM, SMALL, TWO, WIDE, DEEPENING, SMALLER, NOISED)
ALONE = "alone"  # the classifier without a preprocessor, judged under seed 0
BF16 = "--craft prepared-bf16 --precision bf16"
# PGD-10 asks for 11 gradients an image, a single step for 2, and the watch for 11 of 128 images an epoch (256 when the
# first three eighths were trained).
WAYS = {
    FAITHFUL: "",
    FAST: BF16,
    EIGHTH: f"{BF16} --inner single-step",
    WARM: f"{BF16} --inner warm-started",
    SMALL: f"{BF16} --inner warm-started --batch-size 16",
    TWO: f"{BF16} --inner warm-then-two --batch-size 16",
    WIDE: f"{BF16} --inner warm-then-two --batch-size 16",
    DEEPENING: f"{BF16} --inner warm-deepening --batch-size 16",
    SMALLER: f"{BF16} --inner warm-started --batch-size 8",
    NOISED: f"{BF16} --inner warm-noised --batch-size 16",
}
FASHION = Task(
    data="fashion-mnist",
    guide="cnn",
    threat=Linf(0.2),  # the paper's radius for this set
    options="--preprocessor aaa-autoencoder --images 10000 --batch-size 32 --lr 0.004",
    images=5000,
    epochs={FAITHFUL: 7, FAST: 7, EIGHTH: 4, WARM: 4, SMALL: 4, TWO: 4},
)
CIFAR = Task(
    data="cifar-10",
    guide="resnet20:.data/classifiers/akamaster-cifar10-resnet20.th",
    threat=Linf(1 / 255),  # the paper's 8/255 asks for far more than two cores give
    options="--preprocessor narrow-dncnn --mse-weight 1 --images 4000 --batch-size 16 --lr 0.001",
    images=2000,
    epochs={FAITHFUL: 4, FAST: 4, WIDE: 2},
    widened={WIDE: Linf(2 / 255)},
    normalization=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
TASKS = {
    "fashion-mnist": FASHION,
    # The guide and both ways anew, on another processor: its weights differ, so that nothing pairs with those above.
    "fashion-mnist-anew": replace(FASHION, images=AUTOATTACKED, epochs={FAITHFUL: 7, TWO: 4, DEEPENING: 3}),
    # For three times as long: whether an eighth misses because so short a training moves the weights seldom.
    "fashion-mnist-longer": replace(FASHION, images=AUTOATTACKED, epochs={FAITHFUL: 21, DEEPENING: 9, NOISED: 8}),
    "cifar-10": CIFAR,
    # Anew likewise: another eighth. An image that AutoAttack does not break takes it a third of a minute on one core.
    "cifar-10-anew": replace(
        CIFAR,
        epochs={FAITHFUL: 4, SMALLER: 2},
        widened={SMALLER: Linf(2 / 255)},
        autoattacked=200,
        batch=50,
    ),
}
COMMON = "--hold-out 0 --steps 10 --relative-step 0.25 --ema 0.99"


def place(root: Path, task: str, way: str, seed: int) -> Path:
    """The folder of one run, or of its results."""
    return root / task / f"{way}-s{seed}"


def command(name: str, way: str, seed: int) -> list[str]:
    """The words of `forefend` that train a run."""
    task = TASKS[name]
    threat = task.widened.get(way, task.threat)
    words = f"train aaa --data {task.data} --guides {task.guide} --threat {threat} {COMMON} {task.options}"
    words += f" --epochs {task.epochs[way]} {WAYS[way]} --seed {seed} --out {place(RUNS, name, way, seed)}"
    for option, numbers in zip(("--mean", "--std"), task.normalization, strict=True):
        words += f" {option} {' '.join(map(str, numbers))}" if numbers else ""
    return words.split()
