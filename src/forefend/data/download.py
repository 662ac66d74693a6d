"""Fetch a published set from its publisher, when the user asks for it and never otherwise."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path

from forefend.checks import InputError, choose
from forefend.data.registry import SETS, PublishedSet, find_files, verify


def download(name: str, data_dir: str | Path) -> Path:
    """Fetch a set, proved by its digests; nothing is fetched when it is already there.

    Args:
        name: "mnist", "fashion-mnist", "cifar-10", "cifar-100" or "svhn".
        data_dir: the folder in which the set's own folder is made.

    Returns:
        The set's folder.

    Raises:
        InputError: an unknown name, pooch is not installed, the publisher cannot be reached, or what it sends differs.
    """
    spec = choose(name, SETS, "set to download")
    held = _held(name, Path(data_dir))
    if held is not None:
        return held
    folder = Path(data_dir) / spec.folder
    folder.mkdir(parents=True, exist_ok=True)
    for url, digest in spec.urls.items():
        fetched = _fetch(url, digest, folder)
        if fetched.name.endswith(".tar.gz"):
            _unpack(fetched, spec, folder)
            fetched.unlink()
    return folder


def _held(name: str, data_dir: Path) -> Path | None:
    """Where the whole set lies already, each file proved; None when some of it is absent or differs."""
    try:
        paths = [find_files(name, split, data_dir) for split in SETS[name].splits]
    except InputError:
        return None
    return paths[0][0].parent if all(paths) else None


def _fetch(url: str, digest: str, folder: Path) -> Path:
    try:
        import pooch
    except ImportError:
        raise InputError("Downloading needs pooch: pip install 'forefend[data]'.") from None
    name = url.rsplit("/", 1)[-1]
    try:
        return Path(pooch.retrieve(url, digest, name, folder, progressbar=sys.stderr.isatty()))
    except ValueError:
        raise InputError(f"{url} did not send the published file (expected {digest}): nothing was kept.") from None
    except OSError as error:
        raise InputError(
            f"{url} could not be fetched ({type(error).__name__}): check the network, or put the file into {folder}."
        ) from None


def _unpack(archive: Path, spec: PublishedSet, folder: Path) -> None:
    """Take the files of the splits out of an archive, whatever else it holds, each proved before it gets its name."""
    with tarfile.open(archive) as members:
        for member in members:
            target = folder / Path(member.name).name
            content = members.extractfile(member)
            if content is None or target.name not in spec.digests:
                continue
            partial = target.with_name(target.name + ".part")
            with partial.open("wb") as file:
                shutil.copyfileobj(content, file)
            verify(partial, spec.digests[target.name])
            os.replace(partial, target)
