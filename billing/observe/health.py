"""Prometheus metrics on /metrics and the process's own view of itself on /health."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

HealthView = Callable[[], "tuple[bool, dict[str, Any]]"]
"""Answers (healthy, details); called from the server's thread, so it must only read."""


class _QuietHandler(WSGIRequestHandler):
    timeout = 5  # seconds; a client that says nothing holds no thread for longer

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not news."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class HealthServer:
    """Serves on loopback or `host`, in a thread of its own; `port` 0 takes a free one (see `.port`)."""

    def __init__(
        self, port: int, view: HealthView, *, host: str = "127.0.0.1", registry: CollectorRegistry = REGISTRY
    ) -> None:
        metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/metrics":
                return metrics(environ, start_response)
            if environ["PATH_INFO"] != "/health":
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics or /health\n"]
            healthy, details = view()
            status = "200 OK" if healthy else "503 Service Unavailable"
            start_response(status, [("Content-Type", "application/json")])
            return [json.dumps({"healthy": healthy, **details}).encode()]

        self._server = make_server(host, port, app, _Server, _QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self.port: int = self._server.server_port

    def __enter__(self) -> HealthServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
