"""The load test of the server: its committed tables, and the clients against a small server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import pages
from benchmarks.serving import clients, page
from forefend.runtime import files

RESULTS = Path(__file__).parents[2] / "results" / "serve"


def test_blocks_match_the_committed_page() -> None:
    assert pages.renew(RESULTS / "README.md", page.blocks(RESULTS), check=True)


def test_committed_load_tests_lost_nothing_and_kept_their_memory() -> None:
    found = [files.read_versioned(path) for path in RESULTS.glob("*.json")]
    assert len(found) >= 2
    for one in found:
        assert (one["stop"]["lost"], one["stop"]["exit_status"], one["memory"]["requests"]) == (0, 0, 10_000)
        _, early, *_, last = one["memory"]["resident_mb"]
        assert last < early * 1.02


class Handler(BaseHTTPRequestHandler):
    """Answers ten requests, and then says that it stops."""

    protocol_version = "HTTP/1.1"
    left = 10

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.left -= 1
        self.send_response(200 if Handler.left >= 0 else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_clients_count_answers_and_refusals(address: str) -> None:
    Handler.left = 10
    load = clients._process(address, [b"a", b"bc"], 3, 8)
    assert (load.statuses, len(load.latencies), load.refused, load.broken) == (Counter({200: 8}), 8, 0, 0)
    load = clients._process(address, [b"a"], 2, None)
    assert load.statuses == Counter({200: 2, 503: 2})
    assert clients._process("http://127.0.0.1:1", [b"a"], 2, 4).refused == 2
