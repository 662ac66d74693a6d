"""The gate before the application: it counts and logs requests, and refuses those that are too many or too large."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forefend.serving.limits import Limits
from forefend.serving.logs import log, log_error
from forefend.serving.metrics import Metrics
from forefend.serving.rate_limit import RateLimit
from forefend.serving.request_error import RequestError

PATHS = ("/", "/predict", "/health", "/info", "/metrics", "/openapi.json")
LIMITED = "/predict"


@dataclass
class Traffic:
    """The requests of a server.

    Args:
        stopping: whether new requests are refused.
        accepted: requests that passed the gate.
        answered: of these, the ones whose answer was handed to the connection.
    """

    stopping: bool = False
    accepted: int = 0
    answered: int = 0

    @property
    def in_progress(self) -> int:
        """Requests that wait for their answer."""
        return self.accepted - self.answered


class Gate:
    """ASGI middleware; every request passes it first.

    Args:
        app: the application.
        limits: what is accepted.
        metrics: where requests are counted.
        traffic: the requests of this server.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, traffic: Traffic) -> None:
        self.app, self.limits, self.metrics, self.traffic = app, limits, metrics, traffic
        self._rate = None if limits.rate is None else RateLimit(limits.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, exchange = time.perf_counter(), _Exchange(send, self.traffic)
        try:
            self._check(scope)
        except RequestError as refusal:
            await _refused(refusal)(scope, receive, exchange.send)
        else:
            await self._passed(scope, receive, exchange)
        finally:
            self._note(scope, exchange, time.perf_counter() - begun)

    async def _passed(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        self.traffic.accepted += 1
        self.metrics.waiting.set(self.traffic.in_progress)
        body = _LimitedBody(receive, self.limits)
        try:
            await self.app(scope, body.receive, exchange.send)
        except Exception as error:
            log_error("failed", error, path=scope["path"])
            if exchange.status:
                raise
            sentence = "The server failed on this request; its log says why."
            await _refused(RequestError(500, sentence))(scope, receive, exchange.send)
        finally:
            self.traffic.answered += 1
            self.metrics.waiting.set(self.traffic.in_progress)

    def _check(self, scope: Scope) -> None:
        if self.traffic.stopping:
            raise RequestError(503, "The server is stopping: ask another one, or later.", {"Retry-After": "5"})
        if scope["path"] != LIMITED:
            return
        client = (scope.get("client") or ("unknown", 0))[0]
        if self._rate is not None and (wait := self._rate.wait(client)):
            raise RequestError(
                429,
                f"{client} asks more than {self.limits.rate:g} times a second: wait {wait:.2f} s.",
                {"Retry-After": str(int(wait) + 1)},
            )
        if self.traffic.in_progress >= self.limits.most_waiting:
            raise RequestError(
                503, f"The server is busy with {self.traffic.in_progress} requests: ask later.", {"Retry-After": "1"}
            )
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.most_bytes:
            raise _too_long(self.limits.most_bytes)

    def _note(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        path = scope["path"] if scope["path"] in PATHS else "other"
        status = exchange.status or 499  # the client left before an answer
        self.metrics.requests.labels(path, str(status)).inc()
        images = scope.get("state", {}).get("images", 0)
        if path == LIMITED:
            self.metrics.seconds.observe(seconds)
        log(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            client=(scope.get("client") or ("unknown", 0))[0],
            images=images,
            ms=round(1000 * seconds, 2),
        )


class _Exchange:
    """The answer of one request: its status, and that the connection ends where the server stops."""

    def __init__(self, send: Send, traffic: Traffic) -> None:
        self._send, self._traffic, self.status = send, traffic, 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._traffic.stopping:
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await self._send(message)


class _LimitedBody:
    """The body of a request, which may be neither too long nor too slow."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits, self._size, self._complete = receive, limits, 0, False
        self._end = asyncio.get_running_loop().time() + limits.seconds

    async def receive(self) -> Message:
        if self._complete:  # what follows is that the client left, after any time
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise RequestError(
                408, f"The body took more than {self._limits.seconds:g} s to arrive: try again."
            ) from None
        self._size += len(message.get("body", b""))
        if self._size > self._limits.most_bytes:
            raise _too_long(self._limits.most_bytes)
        self._complete = not message.get("more_body", False)
        return message


def _too_long(most: int) -> RequestError:
    return RequestError(413, f"The body has more than {most:,} bytes: send fewer or smaller images.")


def _refused(refusal: RequestError) -> Any:
    return JSONResponse({"detail": str(refusal)}, refusal.status, {**(refusal.headers or {})})
