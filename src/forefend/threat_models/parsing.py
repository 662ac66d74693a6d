"""Read threat models from text: `"Linf:8/255"`, `"L2:0.5"`, `"Wasserstein:0.03"`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from forefend.checks import InputError, unknown_name
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf
from forefend.threat_models.wasserstein import Wasserstein

_WASSERSTEIN = re.compile(r"wasserstein:([^()]*)(?:\(window=(\d+), exact=(\d+)\))?", re.IGNORECASE)


def parse_threat_model(text: str) -> ThreatModel:
    """Parse `NORM:RADIUS`, for example `Linf:8/255`, `L2:0.5` or `Wasserstein:0.03`.

    Returns:
        The threat model; `str()` of it parses to an equal one.
    """
    wasserstein = _WASSERSTEIN.fullmatch(text)
    if wasserstein:
        radius, window, exact = wasserstein.groups()
        return Wasserstein(radius) if window is None else Wasserstein(radius, int(window), int(exact))
    norm, colon, radius = text.partition(":")
    if not colon:
        raise InputError(f"{text!r} is not a threat model: write NORM:RADIUS, such as Linf:8/255 or L2:0.5.")
    if norm.lower() == "linf":
        return Linf(radius)
    if norm.lower() == "l2":
        return L2(radius)
    raise unknown_name(norm, ("Linf", "L2", "Wasserstein"), "norm")


def as_threat_model(given: ThreatModel | str) -> ThreatModel:
    """Return a threat model given as an object or by name, such as `"Linf:8/255"`."""
    if isinstance(given, str):
        return parse_threat_model(given)
    if not isinstance(given, ThreatModel):
        raise InputError(
            f"{given!r} is not a threat model: give a name such as 'Linf:8/255', or forefend.Linf('8/255')."
        )
    return given


def as_file_name(threat: ThreatModel | str) -> str:
    """Return the name of a threat model as a part of a file's or folder's name."""
    return str(threat).replace("/", "_").replace(":", "")


def as_threat_models(given: ThreatModel | str | Iterable[ThreatModel | str]) -> list[ThreatModel]:
    """Return a list of threat models from one or several, given as objects or by name."""
    if isinstance(given, Iterable) and not isinstance(given, str):
        return [as_threat_model(each) for each in given]
    return [as_threat_model(given)]
