"""`forefend serve` in a process of its own: how it starts, stops and is refused."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
import torch
from helpers.command_line import guide, refused
from helpers.serving import PNG, encoded

from benchmarks.serving.process import ServerProcess
from forefend import data
from forefend.models import preprocessors
from forefend.models.classifiers.loading import load as load_classifier
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard, load
from forefend.runtime import files
from forefend.serving.server import listening


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the defense `bare` of the digits, and with `released`, the same to give away."""
    here = tmp_path_factory.mktemp("serve")
    torch.manual_seed(0)
    network = preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1])
    card = DefenseCard("narrow-unet", dict(network.settings), "Linf:0.1", "rtfe", "digits")  # type: ignore[arg-type]
    defense = Defense(network, card).eval()
    defense.save(here / "bare")
    defense.save_pretrained(here / "released")
    return here


@pytest.fixture(scope="module")
def digit() -> bytes:
    """A picture of a digit."""
    x, _, _ = data.load("digits", "test").batch(torch.arange(1))
    return encoded(x[0])


@pytest.fixture
def server(folder: Path) -> Iterator[ServerProcess]:
    """A server of `released`; to start one takes seconds."""
    with ServerProcess(["released", "--classifier", str(guide())], folder) as process:
        yield process


def ask(address: str, content: bytes, query: str = "") -> httpx.Response:
    return httpx.post(f"{address}/predict{query}", content=content, headers=PNG, timeout=30)


def after_head(address: str, path: str) -> bytes:
    """Every byte of the answer to HEAD, which load balancers send."""
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as connection:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(partial(connection.recv, 65536), b""))


def test_defense_folder_is_served_and_stops_by_itself(server: ServerProcess, folder: Path) -> None:
    x, _, _ = data.load("digits", "test").batch(torch.arange(1))
    x = (x * 255).round() / 255
    model = Defended(load(folder / "bare"), load_classifier(guide()).network)
    answer = ask(server.address, encoded(x[0]), "?top=10").json()["answers"][0]
    with torch.no_grad():
        assert answer["defended"]["probability"] == pytest.approx(float(model(x).double().softmax(1).max()), abs=1e-5)
    info = httpx.get(f"{server.address}/info").json()
    assert (info["format"], info["images"]["shape"], info["measured"]) == (1, [1, 8, 8], [])
    assert info["defense"]["identity"] == load(folder / "bare").identity()
    assert info["model_card"] == (folder / "released" / "README.md").read_text()
    given, head = httpx.get(f"{server.address}/health"), after_head(server.address, "/health")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")  # no body
    assert f"content-length: {len(given.content)}".encode() in head.lower()
    paths = httpx.get(f"{server.address}/openapi.json").json()["paths"]
    assert paths.keys() == {"/predict", "/health", "/info", "/metrics"}
    assert len(httpx.get(f"{server.address}/metrics").text.splitlines()) > 20
    long = httpx.post(f"{server.address}/predict", content=b"0" * 12_000_000, headers=PNG, timeout=30)
    assert (long.status_code, "more than 10,000,000 bytes" in long.json()["detail"]) == (413, True)
    busy = server.address.rpartition(":")[2]
    assert f"Port {busy} of 127.0.0.1 is in use" in refused(f"serve {folder}/bare --port {busy}")
    server.process.send_signal(signal.SIGINT)
    assert server.ended() == 0
    assert server.log()[-1]["event"] == "stopped"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.address}/health")


def test_sigterm_answers_every_accepted_request(server: ServerProcess, digit: bytes) -> None:
    """Sixteen clients ask without a pause, and one has sent half of its request, when the signal comes."""
    statuses, lock = Counter[int](), threading.Lock()

    def keep_asking() -> None:
        with httpx.Client(timeout=60) as client, suppress(httpx.ConnectError, httpx.ReadError, httpx.WriteError):
            while not statuses[503]:  # by then the server takes no more
                answer = client.post(f"{server.address}/predict", content=digit, headers=PNG)
                assert "answers" in answer.json() or "is stopping" in answer.json()["detail"]
                with lock:
                    statuses[answer.status_code] += 1

    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(digit)}\r\n\r\n"
    port = int(server.address.rpartition(":")[2])
    with ThreadPoolExecutor(16) as clients, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(head.encode() + digit[:40])
        asked = [clients.submit(keep_asking) for _ in range(16)]
        while statuses[200] < 100:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        for one in asked:
            one.result()
        time.sleep(1)
        with pytest.raises(httpx.ConnectError):  # its socket is closed, and it still waits for the slow client
            httpx.get(f"{server.address}/health")
        slow.sendall(digit[40:])
        received = b"".join(iter(partial(slow.recv, 65536), b""))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert "answers" in json.loads(received.partition(b"\r\n\r\n")[2])
    assert server.ended() == 0
    last = server.log()[-1]
    assert last["accepted"] == last["answered"] == statuses[200] + 1
    assert statuses.keys() == {200, 503}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("nowhere", "nowhere holds no defense.json"),
        ("unfinished", "unfinished holds no defense.json"),
        ("bare", "bare has no classifier to defend: name one with --classifier"),
        ("bare --classifier nothing", "There is no run, JSON card, source or architecture called 'nothing'"),
        ("bare --port 70000", "The port is 70000, expected 0 to 65535"),
        ("bare --host 192.0.2.1", "Cannot listen on 192.0.2.1"),
        ("bare --max-batch 0", "--max-batch (most_images) is 0, expected 1 or more"),
        ("bare --window -1", "--window is -1, expected 0 to 10000 milliseconds"),
        ("bare --rate 0", "rate is 0.0, expected a finite number above 0"),
        ("bare --data nothing --classifier cnn", "There is no data set called 'nothing'"),
        ("bare --prot 1", "There is no option --prot in forefend serve: did you mean --port?"),
    ],
)
def test_server_that_cannot_start_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: str, words: str
) -> None:
    monkeypatch.chdir(folder)
    files.write_versioned(folder / "unfinished" / "config.json", {"config": {"data": "digits"}})
    port = "" if "--port" in options else " --port 0"
    assert words in refused(f"serve {options}{port}")


def test_missing_package_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'forefend[serve]'" in refused(f"serve {folder}/bare --port 0")


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with listening("127.0.0.1", 0) as sock, socket.create_connection(sock.getsockname()):
        connection, _ = sock.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
