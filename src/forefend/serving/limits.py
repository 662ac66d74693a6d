"""What a server accepts of its clients."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from forefend.checks import InputError

OPTIONS = {  # of `forefend serve`, by the limit of another name that each sets
    "most_bytes": "--max-bytes",
    "most_pixels": "--max-pixels",
    "most_images": "--max-batch",
    "most_waiting": "--max-waiting",
}


@dataclass(frozen=True)
class Limits:
    """The limits of one server.

    Args:
        most_bytes: of the body of a request.
        most_pixels: of one picture, before it is resized.
        most_images: of a request, and of a batch of the model.
        most_waiting: requests that are answered at a time; more are refused.
        rate: requests a second of one address, with as many at once; None for any number.
        seconds: in which the body of a request must arrive.

    Raises:
        InputError: a number is out of range.
    """

    most_bytes: int = 10_000_000
    most_pixels: int = 25_000_000
    most_images: int = 32
    most_waiting: int = 256
    rate: float | None = None
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least, expected = (1e-6, "a finite number above 0") if name in ("rate", "seconds") else (1, "1 or more")
            if value is not None and not least <= value < 1e12:
                told = f"{OPTIONS[name]} ({name})" if name in OPTIONS else name
                raise InputError(f"{told} is {value}, expected {expected}.")

    def as_json(self) -> dict[str, Any]:
        """Return the limits by name."""
        return asdict(self)
