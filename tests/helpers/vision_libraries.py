"""The libraries of the extra `vision` for tests, which are skipped where they are missing."""

from __future__ import annotations

from typing import Any

import pytest

from forefend.checks import InputError
from forefend.models.classifiers.sources.vision_import import import_vision


def vision_library(name: str) -> Any:
    """Import timm, torchvision or transformers; skip the calling test, or module, where it is missing."""
    try:
        return import_vision(name, "the test")
    except InputError as error:
        pytest.skip(str(error), allow_module_level=True)
