"""A server on this machine that answers for images over HTTP."""

from __future__ import annotations

import http.client
import io
import ipaddress
import json
import socket
import weakref
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from forefend.checks import InputError

Array = np.ndarray[Any, Any]
NPY, JSON = "application/x-npy", "application/json"
_WANTS_JSON = (400, 415, 422)  # what servers answer to a body that they do not read


class LocalServer:
    """A function of images that a server on this machine computes.

    Each batch is one POST: a `.npy` body of `(B, C, H, W)` float32 images in [0, 1], or, for a server that refuses it
    (400, 415 or 422), JSON `{"images": nested lists}` from then on. The server answers 200 with a `.npy` body, or with
    JSON: the list of rows, or `{"outputs": rows}`. Redirects and proxies are not followed.

    Args:
        url: such as `http://127.0.0.1:8000/predict`; a loopback address.
        time_limit: seconds for one batch.

    Raises:
        InputError: another form of address, or an address of another machine.
    """

    def __init__(self, url: str, time_limit: float) -> None:
        self.url, self.time_limit = url, time_limit
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            raise InputError(f"{url} is no address: give one such as http://127.0.0.1:8000/predict.") from None
        if parts.scheme != "http" or not is_loopback(host):
            raise InputError(
                f"{url} is not on this machine, and images are sent to loopback addresses alone: give one such as "
                "http://127.0.0.1:8000/predict."
            )
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connection = http.client.HTTPConnection(host, port, timeout=time_limit)
        weakref.finalize(self, self._connection.close)  # Python warns of sockets that are left open
        self._type = NPY

    def __call__(self, x: Array) -> Array:
        """Return the server's answer for images, `(B, C, H, W)` float32.

        Raises:
            InputError: the server cannot be reached, takes too long, refuses, or answers in another form.
        """
        status, kind, body = self._post(x)
        if status in _WANTS_JSON and self._type == NPY:
            self._type = JSON
            status, kind, body = self._post(x)
        if status != 200:
            shown = " ".join(body[:200].decode(errors="replace").split())
            raise InputError(f"{self.url} answers {status} ({shown or 'nothing'}), expected 200: see its log.")
        try:
            return _from_json(json.loads(body)) if JSON in kind else np.load(io.BytesIO(body), allow_pickle=False)
        except (ValueError, EOFError, TypeError, KeyError) as error:
            raise InputError(
                f"{self.url} answers with {kind or 'no content type'} that cannot be read ({error}): answer a .npy "
                f'file, or JSON {{"outputs": rows}} as {JSON}.'
            ) from None

    def _acknowledge_at_once(self) -> None:
        """Save the 40 ms that simple servers otherwise wait for between head and body of each answer."""
        if self._connection.sock and hasattr(socket, "TCP_QUICKACK"):  # Linux; it holds for the next packets only
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        self._connection.close()

    def _post(self, x: Array) -> tuple[int, str, bytes]:
        headers = {"Content-Type": self._type, "Accept": f"{NPY}, {JSON}"}
        body = _as_npy(x) if self._type == NPY else json.dumps({"images": x.tolist()}).encode()
        for attempt in range(2):
            try:
                self._connection.request("POST", self._path, body, headers)
                self._acknowledge_at_once()
                response = self._connection.getresponse()
                return response.status, response.headers.get("Content-Type", ""), response.read()
            except TimeoutError:
                self.close()
                raise InputError(
                    f"{self.url} did not answer {len(x)} images within {self.time_limit:g} s: give it more time or "
                    "smaller batches."
                ) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()  # a server may close a connection between two batches
                if attempt:
                    raise InputError(
                        f"{self.url} cannot be reached ({error or type(error).__name__}): start the server, and check "
                        "its port."
                    ) from None
        raise AssertionError("unreachable")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by its address or as localhost."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _as_npy(x: Array) -> bytes:
    npy = io.BytesIO()
    np.save(npy, x, allow_pickle=False)
    return npy.getvalue()


def _from_json(content: Any) -> Array:
    return np.asarray(content["outputs"] if isinstance(content, dict) else content)
