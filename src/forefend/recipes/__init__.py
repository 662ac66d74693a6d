"""Recipes: one file for each paper's training method or baseline. The table is what the command line calls them."""

from __future__ import annotations

from ..recipe import Recipe
from .aaa import AAA
from .adversarial import Adversarial
from .ape_gan import APEGAN
from .denoised_smoothing import DenoisedSmoothing
from .hgd import HGD
from .jatp import JAT, JATP, JATPPrime
from .mart import MART
from .mma import MMA
from .mma_simple import MMASimple
from .natural import Natural
from .nrp import NRP
from .robustifier import Robustifier
from .rtfe import RTFE
from .trades import TRADES
from .transfer import Transfer

__all__ = [
    "AAA",
    "APEGAN",
    "HGD",
    "JAT",
    "JATP",
    "MART",
    "MMA",
    "NRP",
    "RECIPES",
    "RTFE",
    "TRADES",
    "Adversarial",
    "DenoisedSmoothing",
    "JATPPrime",
    "MMASimple",
    "Natural",
    "Robustifier",
    "Transfer",
]

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
