"""Whether a running party works, and its figures, over HTTP: ``/healthz`` for whoever restarts it, ``/metrics``.

Off unless the settings name an address; meant for this machine or a monitoring network, as it asks nobody who they are.
One request at a time, GET only, nothing read but the request line and its headers, five seconds for each.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from federation.cli.figures import Sample, families
from federation.cli.running import RunningParty
from federation.errors import OperatorError

STALE_S: Final = 60.0
"""A loop that has not gone round for so long is taken to be stuck."""

_REQUEST_S_MAX: Final = 5.0
_SHOWN: Final = ("study", "site", "phase", "round", "rounds", "connected", "settled", "problem")

logger = logging.getLogger(__name__)
Figures = Callable[[], Iterable[Sample]]


def judge(status: dict[str, Any], age_s: float) -> tuple[HTTPStatus, dict[str, Any]]:
    """What ``/healthz`` answers: 200 while the loop goes round (whoever is away), else 503 with the reason."""
    shown: dict[str, Any] = {name: status[name] for name in _SHOWN if name in status}
    if isinstance(shown.get("connected"), list):
        shown["connected"] = len(shown["connected"])
    if not status:
        return HTTPStatus.SERVICE_UNAVAILABLE, {"healthy": False, "reason": "it is starting"}
    if age_s > STALE_S:
        reason = f"its loop has stood still for {age_s:.0f} s; look into party.log, then restart it: nothing is lost"
        return HTTPStatus.SERVICE_UNAVAILABLE, {"healthy": False, "reason": reason, **shown}
    return HTTPStatus.OK, {"healthy": True, "age_s": round(age_s, 1), **shown}


@contextmanager
def health(address: str, party: RunningParty, figures: Figures) -> Iterator[None]:
    """Answer at ``address`` (HOST:PORT; empty: nowhere) while the block runs.

    Raises:
        OperatorError: the address cannot be listened on.
    """
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(_Figures(party, figures))

    class Answers(BaseHTTPRequestHandler):
        timeout = _REQUEST_S_MAX

        def do_GET(self) -> None:
            if self.path == "/healthz":
                code, document = judge(party.status, party.age_s)
                self._answer(code, "application/json", json.dumps(document).encode("utf-8"))
            elif self.path == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/healthz or /metrics\n")

        def _answer(self, code: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            logger.debug(format, *args)

    try:
        server = HTTPServer((host.strip("[]"), int(port)), Answers)
    except OSError as error:
        raise OperatorError(
            f"Health cannot be shown at {address}: {error.strerror}.",
            remedy="Give `health` in accord.toml another HOST:PORT, or leave it empty.",
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Figures(Collector):
    """Asked by Prometheus' client at every scrape."""

    def __init__(self, party: RunningParty, figures: Figures) -> None:
        self._party, self._figures = party, figures

    def collect(self) -> Iterator[Metric]:
        connected = self._party.status.get("connected", 0)
        own = [
            Sample("accord_status_age_seconds", self._party.age_s),
            Sample("accord_connected", len(connected) if isinstance(connected, list) else connected),
            Sample("accord_awaited", len(self._party.status.get("awaited", ()))),
        ]
        yield from families([*own, *self._figures()])
