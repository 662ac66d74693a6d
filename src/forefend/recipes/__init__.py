"""Training methods, one file for each paper or baseline, and their names on the command line."""

from __future__ import annotations

from forefend.recipes.aaa import AAA
from forefend.recipes.adversarial import Adversarial
from forefend.recipes.ape_gan import APEGAN
from forefend.recipes.base import Recipe
from forefend.recipes.denoised_smoothing import DenoisedSmoothing
from forefend.recipes.hgd import HGD
from forefend.recipes.jatp import JAT, JATP, JATPPrime
from forefend.recipes.mart import MART
from forefend.recipes.mma import MMA
from forefend.recipes.mma_simple import MMASimple
from forefend.recipes.natural import Natural
from forefend.recipes.nrp import NRP
from forefend.recipes.robustifier import Robustifier
from forefend.recipes.rtfe import RTFE
from forefend.recipes.trades import TRADES
from forefend.recipes.transfer import Transfer

# fmt: off
__all__ = [
    "AAA", "APEGAN", "HGD", "JAT", "JATP", "MART", "MMA", "NRP", "RECIPES", "RTFE", "TRADES", "Adversarial",
    "DenoisedSmoothing", "JATPPrime", "MMASimple", "Natural", "Robustifier", "Transfer",
]
# fmt: on
RECIPES: dict[str, type[Recipe]] = {
    "aaa": AAA,
    "adversarial": Adversarial,
    "ape-gan": APEGAN,
    "denoised-smoothing": DenoisedSmoothing,
    "hgd": HGD,
    "jat": JAT,
    "jatp": JATP,
    "jatp-prime": JATPPrime,
    "mart": MART,
    "mma": MMA,
    "mma-simple": MMASimple,
    "natural": Natural,
    "nrp": NRP,
    "robustifier": Robustifier,
    "rtfe": RTFE,
    "trades": TRADES,
    "transfer": Transfer,
}
