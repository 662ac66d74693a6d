"""Import torchvision, and what needs it, beside a torch of another build."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import torch

from forefend.checks import import_extra

_OPERATORS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[Any] = []  # definitions last as long as their library


def import_vision(module: str, purpose: str) -> Any:
    """Import a module of torchvision, timm or transformers; `purpose` begins the error message.

    The published torchvision is built for CUDA. Beside a torch for the CPU its import fails, as its operators are not
    registered; classifiers need none of them. They are then defined without an implementation.

    Raises:
        InputError: the package is missing or cannot be loaded.
    """
    needed = module.partition(".")[0] != "transformers"  # which fails beside a torchvision that fails, not without one
    if needed or importlib.util.find_spec("torchvision") is not None:
        _import_torchvision(purpose)
    return import_extra(module, purpose, "vision")


def _import_torchvision(purpose: str) -> None:
    if "torchvision" in sys.modules:
        return
    try:
        import_extra("torchvision", purpose, "vision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(operator + _OPERATORS)
        _kept.append(library)
        import_extra("torchvision", purpose, "vision")
