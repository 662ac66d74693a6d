"""Log lines: one JSON object a line, on the standard output."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, final

_LOGGER = logging.getLogger("forefend.serve")


@final
class JsonLines(logging.Formatter):
    """Formats a record as one JSON object; a traceback becomes a text with escaped line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        line: dict[str, Any] = {"time": when, "event": record.getMessage(), **getattr(record, "values", {})}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_logging() -> None:
    """Write log lines to the standard output, also those of the HTTP server."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    for name, level in (("forefend.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def log(event: str, **values: Any) -> None:
    """Write one line."""
    _LOGGER.info(event, extra={"values": values})


def log_error(event: str, error: BaseException, **values: Any) -> None:
    """Write one line with a traceback."""
    _LOGGER.error(event, exc_info=error, extra={"values": values})
