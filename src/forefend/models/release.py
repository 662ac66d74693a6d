"""A folder to give away: the digest of each of its files, and its way to and from huggingface.co."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from forefend.checks import InputError, import_extra
from forefend.models.card_file import WEIGHTS
from forefend.models.classifiers.sources.hub import folder_of_repository
from forefend.runtime.files import check_regular, provenance, read_versioned, write, write_versioned

RELEASE = "release.json"
SIGNATURE = "model.sig"
CARDS = ("defense.json", WEIGHTS)
PATTERNS = ("*.json", "*.safetensors", "README.md", SIGNATURE)  # the only files that are fetched
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check_free(folder: Path) -> None:
    """Refuse a folder with other files, such as a run.

    Raises:
        InputError: it has no `release.json` and holds more than `Defense.save` writes.
    """
    if not folder.exists() or (folder / RELEASE).exists():
        return
    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= set(CARDS):
        raise InputError(f"{folder} holds other files, which are not to be given away: choose an empty or new folder.")


def write_release(folder: Path, contents: Mapping[str, bytes], license_name: str) -> None:
    """Write files beside the weights and their card, and then `release.json` with the digest of each.

    Args:
        folder: holds the weights and their card.
        contents: what else to write, by the name of the file.
        license_name: SPDX name of the license of the weights; empty for none.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)  # of what was there
    for name, content in contents.items():
        write(folder / name, content)
    digests = {name: _digest(folder / name) for name in sorted({*CARDS, *contents})}
    versions = provenance()["versions"]
    write_versioned(folder / RELEASE, {"versions": versions, "license": license_name, "files": digests})


def check_release(folder: Path) -> Collection[str]:
    """Compare each file of a folder with its digest in `release.json`; a folder without one passes.

    Returns:
        The names of these files.

    Raises:
        InputError: a file is missing, or was changed since the folder was written.
    """
    if not (folder / RELEASE).exists():
        return []
    held = read_versioned(folder / RELEASE)
    digests = held.get("files") if isinstance(held, dict) else None
    if not isinstance(digests, dict) or not set(CARDS) <= digests.keys() or any(Path(n).name != n for n in digests):
        raise InputError(f"{folder}/{RELEASE} does not list the files of a defense: copy the whole folder again.")
    for name, digest in digests.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks {name}, which its {RELEASE} lists: copy the whole folder.")
        if _digest(folder / name) != digest:
            raise InputError(
                f"{folder}/{name} is not the file that was released (its SHA-256 differs from {RELEASE}): copy the "
                "folder again."
            )
    return digests


def fetched(repository: str, download: bool, **options: Any) -> Path:
    """Return the folder of a repository of huggingface.co in the local cache.

    Args:
        repository: `owner/name`.
        download: fetch what is missing.
        options: `revision` and `token`.

    Raises:
        InputError: it is neither a folder nor such a name, or it cannot be fetched.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{repository} is neither a folder nor a repository OWNER/NAME of huggingface.co.")
    return folder_of_repository(repository, PATTERNS, download, extra="hub", **options)


def upload(folder: Path, repository: str, private: bool | None, token: str | None) -> str:
    """Upload a folder to a repository of huggingface.co, which is created if it does not exist; return its address.

    Raises:
        InputError: the name is not `owner/name`, or the upload fails.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{repository!r} is no repository of huggingface.co, expected OWNER/NAME.")
    hub = import_extra("huggingface_hub", "Uploading a defense", "hub")
    try:
        hub.create_repo(repository, private=private, token=token, exist_ok=True)
        message = "Upload a defense with forefend"
        return str(hub.upload_folder(repo_id=repository, folder_path=folder, token=token, commit_message=message))
    except Exception as error:  # of several HTTP libraries
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(
            f"{repository} could not be uploaded ({reason}): check the network and the token, or copy the folder of "
            "save_pretrained."
        ) from None


def _digest(path: Path) -> str:
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
