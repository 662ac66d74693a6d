"""`forefend sign`: sign a defense folder with a private key."""

from __future__ import annotations

from getpass import getpass
from pathlib import Path

from forefend.checks import InputError
from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Write the signature of a folder that `forefend export` wrote."""
    parser = Parser("sign", "Sign a defense folder, so that others can tell who gave it away.")
    parser.add_argument("folder", type=str, help="folder that forefend export --to FOLDER wrote")
    parser.add_argument("--key", type=str, required=True, help="file with a private EC key in PEM")
    options = parser.parse_args(arguments)

    from forefend.models.signature import sign

    print(f"{sign(options.folder, options.key, _password(Path(options.key)))}: the signature of the folder's files")
    return 0


def _password(key: Path) -> str | None:
    try:
        return getpass(f"password of {key}: ") if b"ENCRYPTED" in key.read_bytes() else None
    except OSError as error:
        raise InputError(f"The key {key} cannot be read ({error.strerror}): check the path.") from None
