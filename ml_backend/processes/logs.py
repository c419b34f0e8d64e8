"""Logs: an action in words and its facts, one line each."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(level: str, *, process: str) -> None:
    """Log to standard error: readable in a terminal, one JSON object a line elsewhere."""
    structlog.contextvars.bind_contextvars(process=process)
    threshold = logging.getLevelNamesMapping()[level]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    # libraries: warnings and worse, never request lines with headers or tokens
    logging.basicConfig(level=max(threshold, logging.WARNING), stream=sys.stderr, force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # we say ourselves what is broken
    logging.getLogger("cellpose").setLevel(logging.ERROR)  # it warns of packages nobody asked for
