"""forefend: one removable network in front of frozen image classifiers, trained adversarially, measured honestly.

Images are float `(B, C, H, W)` in [0, 1]; classifiers return logits and hold their own normalization.

    import forefend as ff

    defense = ff.load("runs/demo")
    model = ff.Defended(defense, classifier)
    results = ff.evaluate(model, test_set, suite="standard", threat="Linf:8/255")

Names are imported when first used, so that the command line does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # "X as X" marks a name as public for type checkers
    from forefend import attacks as attacks
    from forefend import data as data
    from forefend import losses as losses
    from forefend import recipes as recipes
    from forefend.checks import InputError as InputError
    from forefend.evaluation import suites as suites
    from forefend.evaluation.access import Access as Access
    from forefend.evaluation.certification.certificate import Certificates as Certificates
    from forefend.evaluation.certification.randomized_smoothing import (
        SmoothedClassifier as SmoothedClassifier,
    )
    from forefend.evaluation.certification.randomized_smoothing import (
        certify as certify,
    )
    from forefend.evaluation.certification.smoothing_config import SmoothingConfig as SmoothingConfig
    from forefend.evaluation.comparison.compare import compare as compare
    from forefend.evaluation.comparison.comparison import Comparison as Comparison
    from forefend.evaluation.corruption_robustness import corruptions as corruptions
    from forefend.evaluation.evaluate import evaluate as evaluate
    from forefend.evaluation.evaluated_model import EvaluatedModel as EvaluatedModel
    from forefend.evaluation.gradient_masking.check import check as check
    from forefend.evaluation.gradient_masking.check_report import CheckReport as CheckReport
    from forefend.evaluation.gradient_masking.check_report import CheckResult as CheckResult
    from forefend.evaluation.inspection import Inspection as Inspection
    from forefend.evaluation.inspection import inspect as inspect
    from forefend.evaluation.results import Result as Result
    from forefend.evaluation.results import Results as Results
    from forefend.evaluation.transferability.matrix import TransferMatrix as TransferMatrix
    from forefend.evaluation.transferability.transfer import transfer as transfer
    from forefend.evaluation.trial import Trial as Trial
    from forefend.models import classifiers as classifiers
    from forefend.models import preprocessors as preprocessors
    from forefend.models.defended import Defended as Defended
    from forefend.models.defense import Defense as Defense
    from forefend.models.defense import DefenseCard as DefenseCard
    from forefend.models.defense import load as load
    from forefend.models.defense_readme import Measured as Measured
    from forefend.models.fingerprint import fingerprint as fingerprint
    from forefend.models.freezing import frozen as frozen
    from forefend.models.guide import Guide as Guide
    from forefend.models.optimized_copy import optimized_copy as optimized_copy
    from forefend.models.signature import sign as sign
    from forefend.models.signature import verify as verify
    from forefend.recipes.base import Batch as Batch
    from forefend.recipes.base import Networks as Networks
    from forefend.recipes.base import Recipe as Recipe
    from forefend.recipes.base import Trainable as Trainable
    from forefend.recipes.ensemble import every as every
    from forefend.recipes.ensemble import in_turn as in_turn
    from forefend.recipes.ensemble import sampled as sampled
    from forefend.report import tables as tables
    from forefend.report.measured import measured as measured
    from forefend.runtime.rng import KeyedRNG as KeyedRNG
    from forefend.runtime.signals import Interrupted as Interrupted
    from forefend.threat_models.base import ThreatModel as ThreatModel
    from forefend.threat_models.lp import L2 as L2
    from forefend.threat_models.lp import Linf as Linf
    from forefend.threat_models.wasserstein import Wasserstein as Wasserstein
    from forefend.training.config import TrainingConfig as TrainingConfig
    from forefend.training.resolve_classifiers import resolve_classifier as resolve_classifier
    from forefend.training.trainer import fit as fit

__version__ = "0.1.0"

_MODULES = {
    "attacks": "attacks",
    "classifiers": "models.classifiers",
    "data": "data",
    "losses": "losses",
    "preprocessors": "models.preprocessors",
    "recipes": "recipes",
    "suites": "evaluation.suites",
    "tables": "report.tables",
}
_SOURCES = {
    "checks": ("InputError",),
    "evaluation.access": ("Access",),
    "evaluation.certification.certificate": ("Certificates",),
    "evaluation.certification.randomized_smoothing": ("SmoothedClassifier", "certify"),
    "evaluation.certification.smoothing_config": ("SmoothingConfig",),
    "evaluation.comparison.compare": ("compare",),
    "evaluation.comparison.comparison": ("Comparison",),
    "evaluation.corruption_robustness": ("corruptions",),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.evaluated_model": ("EvaluatedModel",),
    "evaluation.gradient_masking.check": ("check",),
    "evaluation.gradient_masking.check_report": ("CheckReport", "CheckResult"),
    "evaluation.inspection": ("Inspection", "inspect"),
    "evaluation.results": ("Result", "Results"),
    "evaluation.transferability.matrix": ("TransferMatrix",),
    "evaluation.transferability.transfer": ("transfer",),
    "evaluation.trial": ("Trial",),
    "models.defended": ("Defended",),
    "models.defense": ("Defense", "DefenseCard", "load"),
    "models.fingerprint": ("fingerprint",),
    "models.freezing": ("frozen",),
    "models.guide": ("Guide",),
    "models.defense_readme": ("Measured",),
    "models.optimized_copy": ("optimized_copy",),
    "models.signature": ("sign", "verify"),
    "recipes.base": ("Batch", "Networks", "Recipe", "Trainable"),
    "recipes.ensemble": ("every", "in_turn", "sampled"),
    "report.measured": ("measured",),
    "runtime.rng": ("KeyedRNG",),
    "runtime.signals": ("Interrupted",),
    "threat_models.base": ("ThreatModel",),
    "threat_models.lp": ("L2", "Linf"),
    "threat_models.wasserstein": ("Wasserstein",),
    "training.config": ("TrainingConfig",),
    "training.resolve_classifiers": ("resolve_classifier",),
    "training.trainer": ("fit",),
}
_NAMES = {name: module for module, names in _SOURCES.items() for name in names}

__all__ = sorted(["__version__", *_MODULES, *_NAMES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES[name]}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
