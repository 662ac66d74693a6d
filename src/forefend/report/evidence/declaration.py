"""Section 11: what no record can say, from a YAML file of the user."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from forefend.checks import InputError, unknown_name
from forefend.report.page.blocks import COMPLETE, MISSING, PARTIAL, Block, Facts, Mark, Notice, Section
from forefend.runtime.files import check_regular

FIELDS = {
    "responsible": "responsible person",
    "intended_use": "intended use",
    "fallback": "fallback when the model fails",
    "monitoring": "monitoring in operation",
    "data": "where the test images come from, and whom they represent",
    "approved": "date and signature",
}
LARGEST = 100_000  # bytes
COMMAND = "forefend report RUN --html FILE --about about.yaml"


def read(path: str | Path) -> dict[str, str]:
    """Return the fields of a YAML file of plain texts.

    Args:
        path: the file.

    Raises:
        InputError: there is no such file, it is no YAML, or holds other fields than `FIELDS`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}: write one with the fields {', '.join(FIELDS)}.")
    check_regular(path, LARGEST)
    try:
        # Every value stays the text that was written: a date, a number or a time must not be converted.
        held = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not YAML ({' '.join(str(error).split())[:200]}): correct it.") from None
    if not isinstance(held, dict):
        raise InputError(f"{path} holds no fields, expected lines such as 'responsible: NAME'.")
    for name, value in held.items():
        if name not in FIELDS:
            raise unknown_name(str(name), FIELDS, f"field in {path}")
        if isinstance(value, dict | list):
            raise InputError(f"The field {name} of {path} is a {type(value).__name__}, expected one text.")
        if any(unicodedata.category(sign) in ("Cc", "Cs") and not sign.isspace() for sign in value):
            raise InputError(f"The field {name} of {path} holds characters that cannot be shown: remove them.")
    return {name: value for name, value in held.items() if value not in ("", "~", "null")}


def section(given: Mapping[str, str]) -> Section:
    """Return the fields; what was not given is shown as missing."""
    rows = [(title, given.get(name) or Mark(MISSING, "missing")) for name, title in FIELDS.items()]
    found: list[Block] = [Facts(rows)]
    absent = [name for name in FIELDS if not given.get(name)]
    if absent:
        text = f"Write the fields {', '.join(absent)} into a YAML file, and make the page with it."
        found.append(Notice(MISSING, text, COMMAND))
    grade = COMPLETE if not absent else PARTIAL if given else MISSING
    lead = "Statements of the person who is responsible. No record confirms them."
    return Section("declaration", "Declaration", found, grade, lead)
