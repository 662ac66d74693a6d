"""Select the suite of a command, and refuse options that change nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forefend.checks import InputError
from forefend.evaluation.access import Surrogate
from forefend.evaluation.trial import Suite, Terms, with_copies
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.wasserstein import Wasserstein


def select_suite(name: str, suite_of: Callable[[Terms], Suite], terms: Terms, precision: str | None) -> Suite:
    """Return the trials of a suite.

    Args:
        name: the name of the suite.
        suite_of: from terms to its trials.
        terms: threat models, number of classes and surrogates.
        precision: of the copies that propose adversarial images; None for the suite's own.

    Raises:
        InputError: the suite has no attack in a threat model, or an option changes nothing in it.
    """
    _check_threats(name, terms.threats)
    suite = suite_of(terms)
    if terms.surrogates and not any(isinstance(trial.access.view, Surrogate) for trial in suite):
        raise InputError(f"The suite {name} attacks no surrogates: leave out the surrogates, or use black-box.")
    if name == "transfer" and not terms.surrogates:
        raise InputError(f"The suite {name} attacks from other classifiers too: name a surrogate.")
    if not precision:
        return suite
    fast = with_copies(suite, precision)
    if not any(trial.access.precision or trial.stages for trial in fast):
        raise InputError(f"No attack of the suite {name} can compute in {precision}: leave out the precision.")
    return fast


def _check_threats(suite: str, threats: Sequence[ThreatModel]) -> None:
    for threat in threats:
        if isinstance(threat, Wasserstein):
            raise InputError(
                f"The suite {suite} does not attack in {threat}: jatp attacks in Wasserstein at its l∞ radius, and "
                "forefend.attacks.wasserstein from Python at any."
            )
        if suite == "jatp" and threat.norm != "Linf":
            raise InputError(f"The suite jatp attacks in l∞, and {threat} is not: choose one such as Linf:8/255.")
