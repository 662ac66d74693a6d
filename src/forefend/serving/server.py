"""The process that serves: its socket, and how it stops."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI

from forefend.checks import InputError
from forefend.serving.gate import Traffic
from forefend.serving.logs import log, start_logging

GRACE = 0.5  # seconds in which new requests are told that the server stops, before its socket closes
LONGEST_STOP = 60  # seconds for accepted requests to be answered
BACKLOG = 2048


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that an address in use is refused before a model is loaded.

    Raises:
        InputError: the address is in use, is not of this machine or may not be used.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"The port is {port}, expected 0 to 65535.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"Port {port} of {host} is in use: choose another --port, or stop its program.") from None
        reason = error.strerror or str(error)
        raise InputError(f"Cannot listen on {host}, port {port} ({reason}): choose another --host or --port.") from None
    # Connections inherit it. Otherwise an answer in two packets waits for the client's delayed acknowledgement, 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class _Server(uvicorn.Server):
    """A server that refuses new requests for a moment before it closes; a second signal ends that moment."""

    def __init__(self, config: uvicorn.Config, traffic: Traffic) -> None:
        super().__init__(config)
        self._traffic = traffic

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer; from here on a signal stops the server in order."""
        await super().startup(sockets)
        for sock in sockets or ():
            host, port = sock.getsockname()[:2]
            log("listening", address=f"http://{f'[{host}]' if ':' in host else host}:{port}/")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        if self._traffic.stopping:
            super().handle_exit(sig, frame)
            return
        self._traffic.stopping = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, GRACE, super().handle_exit, sig, frame)


def serve(app: FastAPI, sock: socket.socket, traffic: Traffic) -> None:
    """Answer requests until SIGINT or SIGTERM; then answer those that were accepted, and refuse others.

    Args:
        app: the application.
        sock: a listening socket.
        traffic: the requests of the application.
    """
    start_logging()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # a client could choose the address by which its rate is limited
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=LONGEST_STOP,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when all is done
        _Server(config, traffic).run([sock])
    log("stopped", accepted=traffic.accepted, answered=traffic.answered)
