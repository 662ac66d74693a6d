from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forefend.checks import InputError
from forefend.evaluation.fast_trials import Swift, swiftly
from forefend.evaluation.trial import Suite, Surrogate, Terms
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.wasserstein import Wasserstein


def select_suite(options: Any, suite_of: Callable[[Terms], Suite], terms: Terms) -> Suite:
    """The protocol, refused where it does not fit, or an option would change nothing in it."""
    _check_threats(options.suite, terms.threats)
    suite, name = suite_of(terms), f"The suite {options.suite}"
    if terms.surrogates and not any(isinstance(trial.sees, Surrogate) for trial in suite):
        raise InputError(f"{name} attacks no surrogates: leave --surrogates away, or take black-box.")
    if options.suite == "transfer" and not terms.surrogates:
        raise InputError(f"{name} attacks from other classifiers too: name one with --surrogates.")
    if not options.precision:
        return suite
    swift = swiftly(suite, options.precision)
    if not any(isinstance(trial.sees, Swift) or trial.before for trial in swift):
        raise InputError(
            f"{name} judges its attacks at their end, where {options.precision} is of no use: leave --precision away."
        )
    return swift


def _check_threats(suite: str, threats: Sequence[ThreatModel]) -> None:
    """Refuse a threat model that the suite has no attack for."""
    for threat in threats:
        if isinstance(threat, Wasserstein):
            raise InputError(
                f"The suite {suite} does not attack in {threat}: jatp attacks in Wasserstein at its l∞ radius, and "
                "forefend.attacks.wasserstein from Python at any."
            )
        if suite == "jatp" and threat.norm != "Linf":
            raise InputError(f"JATP's attacks are l∞, and {threat} is not: give --threat as Linf:8/255.")
