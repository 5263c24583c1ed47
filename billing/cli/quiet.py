"""Silence beside a command's answer."""

from __future__ import annotations

import logging
import sys

import structlog


def quiet() -> None:
    """What a library or a retry has to say must not stand beside a command's one line, nor in its JSON on stdout.
    Consumer processes have logs of their own."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
