"""How every process logs: lines on stderr, as text for people or as one JSON object each for machines."""

import logging
import os
import socket
import sys

from phaseline.settings import Settings

NOISY = ("aiormq", "aio_pika", "alembic", "aiohttp.access")


def configure(settings: Settings) -> None:
    """Sets the root logger up, once per process. What a call gives as `extra` (job_id, attempt, seq, worker, event, …)
    becomes members of the JSON object beside time, level, logger, message, host and pid."""
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(_json() if settings.log_format == "json" else _text())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[stderr])
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _text() -> logging.Formatter:
    return logging.Formatter(f"%(asctime)s %(levelname)s {socket.gethostname()}[{os.getpid()}] %(name)s: %(message)s")


def _json() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["levelname", "name", "message"],
        timestamp="time",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        static_fields={"host": socket.gethostname(), "pid": os.getpid()},
        json_ensure_ascii=False,
    )
