"""The refusal of a request: an HTTP status and one sentence."""

from __future__ import annotations

from forefend.checks import InputError


class RequestError(InputError):
    """A request that is answered with an error.

    Args:
        status: the HTTP status, such as 413.
        sentence: what was wrong, and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.headers = status, headers
