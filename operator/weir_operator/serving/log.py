"""The log: JSON lines on stderr. Facts go beside the message, never tokens or keys."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec


class JSONLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, and the facts given with `facts`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; the traceback, if any, is a field of it."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def facts(**given: Any) -> dict[str, Any]:
    """What a message is about, for `extra` of the logging functions."""
    return {"facts": given}


def set_up(level: int = logging.INFO) -> None:
    """Send the log of this process to stderr, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
