"""Frozen labels of functions and objects.

Labels are written into records, and the random starts of attacks are derived from them. A labeled
function may be renamed or moved; its label must never change, because every verdict recorded under
it would be orphaned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def labeled(label: str) -> Callable[[Function], Function]:
    """Attach the label of a function for records, configurations and keys of random numbers."""

    def attach(function: Function) -> Function:
        function.label = label  # type: ignore[attr-defined]
        return function

    return attach


def label_of(function: Callable[..., Any]) -> str:
    """Return the label of a function, or its name, or the text of a configured object."""
    return getattr(function, "label", None) or getattr(function, "__name__", None) or str(function)
