"""Published weights: from the cache, or downloaded when asked for; their digests are verified."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import torch

from forefend.checks import InputError, import_extra

_SHA256 = re.compile("[0-9a-f]{64}")


def file_of_url(url: str, download: bool) -> Path:
    """Return a file of torchvision's, whose name ends with the first digits of its SHA-256.

    Raises:
        InputError: it is not there and may not be downloaded, cannot be, or has another digest.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        _check_may_download(path.name, path.parent, download)
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading {url} into {path.parent}", flush=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except (URLError, OSError) as error:
            raise _unreachable(url, error) from None
    digest = path.stem.rpartition("-")[2]
    if not _digest(path).startswith(digest):
        raise InputError(f"{path} is not the published file (its SHA-256 does not begin with {digest}): remove it.")
    return path


def folder_of_repository(
    name: str, patterns: Sequence[str], download: bool, *, extra: str = "vision", **options: str
) -> Path:
    """Return the folder of a repository of huggingface.co in the local cache.

    Args:
        name: such as `timm/resnet18.a1_in1k`.
        patterns: the files that are needed.
        download: fetch what is missing.
        extra: what to install for it.
        options: further arguments of `snapshot_download`, such as `revision`.

    Raises:
        InputError: it is not there and may not be downloaded, cannot be, or has another digest.
    """
    hub = import_extra("huggingface_hub", f"{name} from the hub", extra)
    cache = hub.constants.HF_HUB_CACHE
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=list(patterns), local_files_only=True, **options))
        found = any(folder.glob("*.safetensors"))
    except (hub.errors.LocalEntryNotFoundError, ValueError):
        found = False
    if not found:
        _check_may_download(name, Path(cache), download)
        print(f"downloading {name} from huggingface.co into {cache}", flush=True)
        try:
            folder = Path(hub.snapshot_download(name, allow_patterns=list(patterns), **options))
        except Exception as error:  # of several HTTP libraries
            raise _unreachable(f"{name} on huggingface.co", error) from None
    for file in folder.glob("*.safetensors"):
        _verify(file)
    return folder


def _verify(file: Path) -> None:
    """Compare a large file with its name in the cache, which is the SHA-256 that the hub publishes."""
    expected = file.resolve().name
    if _SHA256.fullmatch(expected) and _digest(file) != expected:
        raise InputError(f"{file} is not the published file (its SHA-256 differs): remove it.")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_may_download(what: str, cache: Path, download: bool) -> None:
    if not download:
        raise InputError(
            f"{what} is not in {cache}: give a file or folder on disk, or download=True to fetch it from the hub."
        )


def _unreachable(what: str, error: Exception) -> InputError:
    reason = " ".join(str(getattr(error, "reason", error)).split())[:100] or type(error).__name__
    return InputError(f"{what} could not be downloaded ({reason}): check the network, or give a file on disk.")
