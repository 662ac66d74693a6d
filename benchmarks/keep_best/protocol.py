"""The runs: one recipe as published, with averaged weights, with the best epoch, and on single steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forefend.threat_models.lp import Linf

RUNS, RESULTS = Path("runs/keep-best"), Path("results/keep-best")
SEEDS = (0, 1, 2)
FAST, AUTOATTACK = "records", "autoattack"  # folders of the verdicts of a run
THREAT = Linf(0.2)  # the radius of the paper for this data set
DATA, GUIDE, IMAGES = "fashion-mnist", "cnn", 1000  # IMAGES of the test set are attacked
# As benchmarks/parity trains it; its bf16 copies changed the accuracy of this task by less than half a point there.
COMMON = (
    f"train aaa --data {DATA} --guides {GUIDE} --threat {THREAT} --preprocessor aaa-autoencoder --images 10000 "
    "--batch-size 32 --lr 0.004 --hold-out 0 --steps 10 --relative-step 0.25 --attack-copy bf16 --precision bf16"
)
AVERAGED = "--ema 0.99"
KEPT = f"{AVERAGED} --keep-best 0.05"


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Args:
        text: the difference from the published recipe, for the page.
        options: of `forefend train`, beside the common ones.
        last_of: the variant of the same training, whose last weights are evaluated instead of its result.
    """

    text: str
    options: str = ""
    last_of: str = ""


VARIANTS = {
    "n-fgsm": Variant("+ EMA + best, one step of N-FGSM", f"{KEPT} --epochs 12 --inner-attack n-fgsm"),
    "atta": Variant("+ EMA + best, one step of ATTA", f"{KEPT} --epochs 12 --inner-attack atta"),
    "fgsm-pgi": Variant("+ EMA + best, one step of FGSM-PGI", f"{KEPT} --epochs 12 --inner-attack fgsm-pgi"),
    "ema": Variant("+ EMA", f"{AVERAGED} --epochs 4"),
    # An average does not change the training that it averages: the last weights are in the same checkpoint.
    "published": Variant("PGD-10, the last weights", last_of="ema"),
    "best": Variant("+ EMA + best", f"{KEPT} --epochs 4"),
}


def folder_of(root: Path, variant: str, seed: int) -> Path:
    """Return the folder of one run, or of its results."""
    return root / f"{variant}-s{seed}"


def command(variant: str, seed: int) -> list[str]:
    """Return the arguments of `forefend` that train a run."""
    return f"{COMMON} {VARIANTS[variant].options} --seed {seed} --out {folder_of(RUNS, variant, seed)}".split()
