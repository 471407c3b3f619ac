"""What a Prometheus tells of versions, and what is said where it does not."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.rollout.prometheus import Counted, RevisionMetrics, counts_of


class Prometheus:
    """Answers each query with what the test has for the words in it."""

    def __init__(self) -> None:
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[str] = []
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                (query,) = parse_qs(urlsplit(self.path).query)["query"]
                double.asked.append(query)
                found = next((rows for words, rows in double.answers.items() if words in query), [])
                body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": found}}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    double = Prometheus()
    thread = threading.Thread(target=double.server.serve_forever, args=(0.05,))
    thread.start()
    yield double
    double.server.shutdown()
    thread.join()
    double.server.server_close()


def rows(**by_result: str) -> list[dict[str, Any]]:
    return [{"metric": {"result": name}, "value": [0, value]} for name, value in by_result.items()]


def test_requests_errors_and_latency_are_those_of_the_versions_pods(prometheus: Prometheus) -> None:
    prometheus.answers = {
        "requests_total": rows(answered="90", refused="7", failed="3"),
        "histogram_quantile": [{"metric": {}, "value": [0, "0.0125"]}],
    }
    metrics = RevisionMetrics(prometheus.url, clock=SystemClock())
    found = metrics.counted("shop", {"v1": "m-v1-predictor-.+"})
    metrics.close()
    assert found == {"v1": Counted(requests=100, errors=3, p99_ms=12.5)}
    assert all('namespace="shop",pod=~"m-v1-predictor-.+"' in query for query in prometheus.asked)


def test_without_requests_there_is_no_latency(prometheus: Prometheus) -> None:
    prometheus.answers = {"histogram_quantile": [{"metric": {}, "value": [0, "NaN"]}]}
    metrics = RevisionMetrics(prometheus.url, clock=SystemClock())
    assert metrics.counted("shop", {"v1": "m-v1-predictor-.+"}) == {"v1": Counted()}
    metrics.close()


def test_a_prometheus_that_does_not_answer_is_said_and_stops_nothing() -> None:
    metrics = RevisionMetrics("http://127.0.0.1:1", clock=SystemClock())
    with pytest.raises(Unavailable, match="Prometheus does not answer"):
        metrics.counted("shop", {"v1": "m-v1-predictor-.+"})
    found, why = counts_of(metrics, "shop", {"v1": "m-v1-predictor-.+"})
    metrics.close()
    assert found == {}
    assert why is not None
    assert why.startswith("errors and latency are not observed")


def test_without_a_prometheus_the_setting_is_named() -> None:
    found, why = counts_of(None, "shop", {"v1": ".+"})
    assert (found, "setting prometheus" in (why or "")) == ({}, True)
