"""Classifiers that a function of the user returns: `package.module:factory` or `path/to/file.py:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from forefend.checks import InputError, unknown_name
from forefend.models.classifiers.black_box import BlackBox
from forefend.models.classifiers.normalized import Normalized
from forefend.models.classifiers.resized import Resized
from forefend.models.classifiers.sources.adapted import Adapted
from forefend.models.classifiers.sources.wanted import Wanted, filled
from forefend.models.classifiers.state_dict import read_state
from forefend.runtime.rng import initialized

COMPLETE = (Normalized, Resized, BlackBox)  # with their normalization inside


def factory_classifier(place: str, name: str, weights: str, wanted: Wanted) -> nn.Module:
    """Return what a function without arguments returns: a network, or a function of numpy images as a black box.

    Args:
        place: an importable module, or a Python file; the working folder is searched too.
        name: the function, or a class of networks.
        weights: a file of weights for the network; empty for those that it has.
        wanted: the images that it is for, and the normalization unless the network is a `Normalized`.

    Raises:
        InputError: there is no such module or function, it fails, or it returns something else.
    """
    spec = f"{place}:{name}"
    with _importable(Path.cwd()):
        made = _call(_module(place), name, spec)
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise InputError(f"{spec} returned a {type(made).__name__}, expected a torch.nn.Module or a function.")
        return BlackBox(made, outputs=wanted.outputs, classes=wanted.classes, name=spec)
    if weights:
        filled(made, read_state(Path(weights)), Path(weights).name, spec)
    if isinstance(made, COMPLETE):
        return made.eval()
    return wanted.preprocessing().before(Adapted(made, wanted.known_shape()))


def _module(place: str) -> ModuleType:
    if place.endswith(".py"):
        return _from_file(Path(place))
    return _executed(partial(importlib.import_module, place), place)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the path.")
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise InputError(f"{path} is no Python file: check the path.")
    module = importlib.util.module_from_spec(found)
    with _importable(path.resolve().parent):
        _executed(partial(found.loader.exec_module, module), str(path))
    return module


def _executed(execute: Callable[[], Any], place: str) -> Any:
    """Return what the code of a module returns, and refuse a module that is missing or fails."""
    try:
        return execute()
    except ModuleNotFoundError as error:
        if error.name and not f"{place}.".startswith(f"{error.name}."):
            raise InputError(f"{place} needs {error.name}, which is not installed: install it.") from None
        raise InputError(
            f"There is no module {place}: call forefend from the folder that holds it, or install its package."
        ) from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{place} cannot be imported ({_reason(error)}): run it with python, and mend it.") from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}".removesuffix(": ")


def _call(module: ModuleType, name: str, spec: str) -> Any:
    if not hasattr(module, name):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(name, public, f"function in {module.__name__}")
    factory = getattr(module, name)
    if isinstance(factory, nn.Module) or not callable(factory):
        return factory
    try:
        return initialized(factory, 0)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{spec} failed ({_reason(error)}): it is called without arguments and returns the network."
        ) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported, as `python` does for the folder of its script; later ones behind others.

    A factory, or a network's forward, may import when it is called.
    """
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
