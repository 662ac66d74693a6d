"""The signature of a defense folder, which tells who gave it away: OpenSSF model signing with a key, offline."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forefend.checks import InputError, import_extra
from forefend.models.release import RELEASE, SIGNATURE, check_release
from forefend.runtime.files import check_regular, write

_WHAT = "Signing a defense"
# Where the library names files, in the text of a list of sentences.
_NAMES = re.compile(r"""Hash mismatch for \\?'([^'\\]+)|(?:Extra|Missing) files [^:]*: ([^"'\\]+)""")
_KEY = "an EC key of curve P-256, P-384 or P-521 in PEM, as `{}` writes"
_COMMANDS = {
    "private": "openssl ecparam -name prime256v1 -genkey -noout",
    "public": "openssl ec -in PRIVATE.pem -pubout",
}


def sign(folder: str | Path, private_key: str | Path, password: str | None = None) -> Path:
    """Sign every file of a defense folder, and write the signature to its `model.sig`.

    The signature is a Sigstore bundle, which the command `model_signing verify key` reads too.

    Args:
        folder: a folder that `Defense.save_pretrained` wrote, without other files.
        private_key: a file with a private EC key in PEM.
        password: of the key, if it has one.

    Returns:
        The path of the signature.

    Raises:
        InputError: the folder is no release, was changed since or holds other files, or the key cannot be used.
    """
    folder = Path(folder)
    signing = import_extra("model_signing.signing", _WHAT, "sign")
    listed = check_release(folder)
    if not listed:
        raise InputError(f"{folder} has no {RELEASE}: give a folder that export --to or save_pretrained wrote.")
    if others := sorted({path.name for path in folder.iterdir()} - {*listed, RELEASE, SIGNATURE}):
        raise InputError(f"{folder} holds {others[0]}, which {RELEASE} does not list: sign the folder without it.")
    try:
        check_regular(Path(private_key))
        config = signing.Config().use_elliptic_key_signer(
            private_key=private_key, password=None if password is None else password.encode()
        )
    except Exception as error:
        raise _bad_key(private_key, "private", error) from None
    with TemporaryDirectory() as place:
        config.set_hashing_config(_hashing()).sign(folder, Path(place, SIGNATURE))
        write(folder / SIGNATURE, Path(place, SIGNATURE).read_bytes())
    return folder / SIGNATURE


def verify(folder: str | Path, public_key: str | Path) -> None:
    """Check that the owner of a key signed a folder as it is now, with `sign` or the tool `model_signing`.

    Args:
        folder: the folder of a defense, with its signature in `model.sig`.
        public_key: a file with the public EC key in PEM, from its owner and not from the folder.

    Raises:
        InputError: there is no signature, it is of another key, or a file was changed, added or removed since.
    """
    folder = Path(folder)
    verifying = import_extra("model_signing.verifying", "Verifying a signature", "sign")
    try:
        check_regular(Path(public_key))
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        raise _bad_key(public_key, "public", error) from None
    if not (folder / SIGNATURE).is_file():
        raise InputError(f"{folder} has no {SIGNATURE}: ask for a signed folder, or load it without a public key.")
    try:
        config.set_hashing_config(_hashing()).verify(folder, folder / SIGNATURE)
    except Exception as error:  # of several libraries, also where the signature is no JSON
        changed = _NAMES.findall(str(error))
        if not changed:
            raise InputError(
                f"{folder} was not signed with the key of {public_key}, or its {SIGNATURE} is damaged: ask its author "
                "for the public key, and copy the folder again."
            ) from None
        names = ", ".join(name for pair in changed for name in pair if name)
        raise InputError(
            f"{folder} is not what was signed ({names} changed, added or missing): copy the folder again."
        ) from None


def _hashing() -> Any:
    """Return how files are hashed: all but the signature; the cache of huggingface.co holds links to them."""
    hashing = import_extra("model_signing.hashing", _WHAT, "sign")
    ignored = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=True)
    return ignored.set_allow_symlinks(True)


def _bad_key(path: str | Path, kind: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:100]
    return InputError(f"{path} is no {kind} key that can be used ({reason}): give {_KEY.format(_COMMANDS[kind])}.")
