"""`forefend verify`: check the signature of a defense folder."""

from __future__ import annotations

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Check that the owner of a key signed a folder, and that nothing in it was changed since."""
    parser = Parser("verify", "Check that the owner of a key signed a defense folder as it is now.")
    parser.add_argument("folder", type=str, help="folder that forefend sign signed")
    parser.add_argument("--key", type=str, required=True, help="file with the public EC key in PEM, from its owner")
    options = parser.parse_args(arguments)

    from forefend.models.defense import load

    load(options.folder, public_key=options.key)
    print(f"{options.folder}: signed with {options.key}, and unchanged since")
    return 0
