"""Download a published set, only at the request of the user."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path

from forefend.checks import InputError, choose, import_extra
from forefend.data.published import SETS, PublishedSet, find_files, verify


def download(name: str, data_dir: str | Path) -> Path:
    """Download a set into its folder in `data_dir`, verify its digests, and return the folder.

    A complete set is not downloaded again.
    """
    spec = choose(name, SETS, "set to download")
    if (complete := _complete_folder(name, Path(data_dir))) is not None:
        return complete
    folder = Path(data_dir) / spec.folder
    folder.mkdir(parents=True, exist_ok=True)
    for url, digest in spec.urls.items():
        fetched = _fetch(url, digest, folder)
        if fetched.name.endswith(".tar.gz"):
            _unpack(fetched, spec, folder)
            fetched.unlink()
    return folder


def _complete_folder(name: str, data_dir: Path) -> Path | None:
    """Return the folder of the verified set, or None where a file is missing or differs."""
    try:
        paths = [find_files(name, split, data_dir) for split in SETS[name].splits]
    except InputError:
        return None
    return paths[0][0].parent if all(paths) else None


def _fetch(url: str, digest: str, folder: Path) -> Path:
    pooch = import_extra("pooch", "Downloading", "data")
    name = url.rsplit("/", 1)[-1]
    try:
        return Path(pooch.retrieve(url, digest, name, folder, progressbar=sys.stderr.isatty()))
    except ValueError:
        raise InputError(f"{url} did not send the published file (expected {digest}); it was not kept.") from None
    except OSError as error:
        raise InputError(
            f"{url} could not be downloaded ({type(error).__name__}): check the network, or put the file into {folder}."
        ) from None


def _unpack(archive: Path, spec: PublishedSet, folder: Path) -> None:
    """Extract the files of the splits from an archive; verify each before it gets its name."""
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
