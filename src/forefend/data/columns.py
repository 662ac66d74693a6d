"""The columns of images and labels in a table with any names."""

from __future__ import annotations

from collections.abc import Iterable

from forefend.checks import InputError

IMAGES = ("image", "images", "img", "pixel_values", "picture")
LABELS = ("label", "labels", "fine_label", "class", "target", "category")
PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path", "img_path")
SPLITS = ("split", "subset", "set", "partition")


def find_column(names: Iterable[str], usual: Iterable[str], what: str, where: str) -> str | None:
    """Return the only one of `names` that is a usual name, in any case of letters; None without one.

    Raises:
        InputError: several are; `what` and `where` are for the message.
    """
    known = set(usual)
    found = [name for name in names if name.lower() in known]
    if len(found) > 1:
        raise several_columns(found, what, where)
    return found[0] if found else None


def several_columns(found: Iterable[str], what: str, where: str) -> InputError:
    """Return the error for a table in which more than one column may be meant."""
    return InputError(
        f"{where} has several columns of {what} ({', '.join(found)}), expected one: remove or rename the others."
    )


def no_column(names: Iterable[str], usual: Iterable[str], what: str, where: str) -> InputError:
    """Return the error for a table without a column of the usual names."""
    return InputError(
        f"{where} has no column of {what} among {', '.join(names) or 'none'}: name it {' or '.join(list(usual)[:2])}."
    )
