"""forefend: one removable network in front of frozen image classifiers, trained adversarially, measured honestly.

Images are float `(B, C, H, W)` in [0, 1]; classifiers return logits and hold their own normalization.

    import forefend as ff

    defense = ff.load("runs/demo")
    model = ff.Defended(defense, classifier)
    results = ff.evaluate(model, test_set, suite="standard", threat="Linf:8/255")

Names are imported when first used, so that the command line does not wait for torch.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forefend import attacks, data, losses, recipes
    from forefend.checks import InputError
    from forefend.evaluation import suites
    from forefend.evaluation.access import Access
    from forefend.evaluation.certification.certificate import Certificates
    from forefend.evaluation.certification.randomized_smoothing import SmoothedClassifier, certify
    from forefend.evaluation.certification.smoothing_config import SmoothingConfig
    from forefend.evaluation.comparison.compare import compare
    from forefend.evaluation.comparison.comparison import Comparison
    from forefend.evaluation.corruption_robustness import corruptions
    from forefend.evaluation.evaluate import evaluate
    from forefend.evaluation.evaluated_model import EvaluatedModel
    from forefend.evaluation.gradient_masking.check import check
    from forefend.evaluation.gradient_masking.check_report import CheckReport, CheckResult
    from forefend.evaluation.results import Result, Results
    from forefend.evaluation.trial import Trial
    from forefend.models import classifiers, preprocessors
    from forefend.models.defense import Defended, Defense, DefenseCard, load
    from forefend.models.fingerprint import fingerprint
    from forefend.models.freezing import frozen
    from forefend.models.guide import Guide
    from forefend.models.optimized_copy import optimized_copy
    from forefend.recipes.base import Batch, Networks, Recipe, Trainable
    from forefend.recipes.ensemble import every, in_turn, sampled
    from forefend.report import tables
    from forefend.runtime.rng import KeyedRNG
    from forefend.runtime.signals import Interrupted
    from forefend.threat_models.base import ThreatModel
    from forefend.threat_models.lp import L2, Linf
    from forefend.threat_models.wasserstein import Wasserstein
    from forefend.training.config import TrainingConfig
    from forefend.training.resolve_classifiers import resolve_classifier
    from forefend.training.trainer import fit

__version__ = metadata.version("forefend")

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
    "evaluation.results": ("Result", "Results"),
    "evaluation.trial": ("Trial",),
    "models.defense": ("Defended", "Defense", "DefenseCard", "load"),
    "models.fingerprint": ("fingerprint",),
    "models.freezing": ("frozen",),
    "models.guide": ("Guide",),
    "models.optimized_copy": ("optimized_copy",),
    "recipes.base": ("Batch", "Networks", "Recipe", "Trainable"),
    "recipes.ensemble": ("every", "in_turn", "sampled"),
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
