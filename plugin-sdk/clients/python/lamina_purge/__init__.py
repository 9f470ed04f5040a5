"""Purges over the admin API of Lamina (``POST /v1/purge``), with a receipt.

>>> purge = LaminaPurge("http://127.0.0.1:9180", token=token)
>>> purge.tags(["user-7"]).wait("2s")
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Union
from urllib.parse import urlsplit

__all__ = [
    "LaminaPurge",
    "PurgeError",
    "PurgeIncomplete",
    "PurgeOrder",
    "PurgeRefused",
    "PurgeUnanswered",
    "PurgeUnknown",
]

#: How long an answer may take beyond the time for which the gateway itself waits, in seconds.
PATIENCE = 10.0

#: What the gateway says with 503 before it looks at an order. Any other 5xx may come from a proxy
#: that did pass it on.
TURNED_AWAY = (
    "another process has taken over: connect again",
    "too many admin requests are under way; try again",
)

Texts = Union[str, Sequence[str]]
Receipt = Dict[str, Any]


class PurgeError(Exception):
    """A purge that did not reach everything."""


class PurgeRefused(PurgeError):
    """The gateway did not take the order: it is wrong, or the token is. Nothing was purged."""

    def __init__(self, message: str, status: Optional[int] = None) -> None:
        super().__init__(message)
        self.status = status


class PurgeIncomplete(PurgeError):
    """It holds on the node that was asked, and ``unconfirmed`` did not confirm it."""

    def __init__(
        self, message: str, receipt: Receipt, unconfirmed: List[str], never_heard: int
    ) -> None:
        super().__init__(message)
        self.receipt = receipt
        self.unconfirmed = unconfirmed
        self.never_heard = never_heard


class PurgeUnknown(PurgeError):
    """Nobody can tell where it holds, or whether it was carried out at all."""

    def __init__(
        self, message: str, receipt: Optional[Receipt] = None, status: Optional[int] = None
    ) -> None:
        super().__init__(message)
        self.receipt = receipt
        self.status = status


class PurgeUnanswered(PurgeUnknown):
    """No answer came; the gateway may have taken the order all the same."""


class LaminaPurge:
    """Makes orders for one gateway."""

    def __init__(
        self,
        admin: str = "http://127.0.0.1:9180",
        token: Optional[str] = None,
        timeout: float = PATIENCE,
    ) -> None:
        """``admin`` is an address, a URL, or ``unix:/path``. White space around the token is taken
        off, as the end of the line that a file has behind it."""
        self._admin = admin
        self._token = _checked(token)
        self._timeout = timeout

    def tags(self, tags: Texts) -> PurgeOrder:
        return self._order("tag", tags)

    def urls(self, urls: Texts) -> PurgeOrder:
        """Absolute URLs, with all variants."""
        return self._order("url", urls)

    def prefixes(self, prefixes: Texts) -> PurgeOrder:
        """``host/path`` or, on every host, ``/path``."""
        return self._order("prefix", prefixes)

    def prefix(self, prefix: str) -> PurgeOrder:
        return self.prefixes(prefix)

    def patterns(self, patterns: Texts) -> PurgeOrder:
        """``*`` is any run of characters, ``?`` one."""
        return self._order("pattern", patterns)

    def routes(self, routes: Texts) -> PurgeOrder:
        return self._order("route", routes)

    def route(self, route: str) -> PurgeOrder:
        return self.routes(route)

    def keys(self, keys: Texts) -> PurgeOrder:
        return self._order("key", keys)

    def all(self) -> PurgeOrder:
        return PurgeOrder(self, {"all": True})

    def _order(self, kind: str, texts: Texts) -> PurgeOrder:
        every = [texts] if isinstance(texts, str) else list(texts)
        if not every or not all(isinstance(text, str) and text for text in every):
            raise ValueError(f"{kind}: expected a text, or a list of texts of which none is empty")
        return PurgeOrder(self, {kind: every})

    def _connection(self, limit: float) -> http.client.HTTPConnection:
        if self._admin.startswith("unix:"):
            return _UnixConnection(self._admin[len("unix:") :], limit)
        url = urlsplit(self._admin if "://" in self._admin else f"http://{self._admin}")
        host = url.hostname or "127.0.0.1"
        if url.scheme == "https":
            return http.client.HTTPSConnection(host, url.port, timeout=limit)
        return http.client.HTTPConnection(host, url.port, timeout=limit)

    def _send(self, asked: Dict[str, Any]) -> Receipt:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        limit = self._timeout + _seconds(asked.get("wait"))
        patience = _Patience(limit)
        connection = self._connection(limit)
        connection.response_class = _FinalResponse

        def connected(*args: Any) -> socket.socket:
            # The handshake of TLS comes after this.
            return patience.watch(socket.create_connection(*args))

        connection._create_connection = connected  # type: ignore[attr-defined]
        try:
            try:
                connection.connect()
            except OSError as error:
                message = f"the gateway can't be reached: {error}; nothing was purged"
                raise PurgeRefused(message) from error
            try:
                if self._admin.startswith("unix:"):
                    patience.watch(connection.sock)
                connection.request("POST", "/v1/purge", json.dumps(asked), headers)
                answer = connection.getresponse()
                status, text = answer.status, answer.read().decode("utf-8", "replace")
                patience.check()
            except (OSError, ValueError, http.client.HTTPException) as error:
                why = f"none within {limit} s" if patience.is_over else error
                message = f"no answer of the gateway: {why}; the purge may hold"
                raise PurgeUnanswered(message) from error
        finally:
            patience.end()
            connection.close()
        return _judged(status, text, asked)


class PurgeOrder:
    """One purge. ``send`` or ``wait`` sends it and gives its receipt."""

    def __init__(self, purge: LaminaPurge, asked: Dict[str, Any]) -> None:
        self._purge = purge
        self.asked = asked

    def soft(self) -> PurgeOrder:
        """What it reaches is served while it is refreshed, instead of being gone."""
        return PurgeOrder(self._purge, {**self.asked, "soft": True})

    def and_(self, other: PurgeOrder) -> PurgeOrder:
        """One order for the selectors of both: it is soft if one of them is."""
        asked = dict(self.asked)
        for kind, texts in other.asked.items():
            known = asked.get(kind)
            asked[kind] = known + texts if isinstance(known, list) else texts
        return PurgeOrder(self._purge, asked)

    def send(self) -> Receipt:
        """Sends it. The receipt comes when it holds on the node that was asked."""
        return self._purge._send(self.asked)

    def wait(self, time: str) -> Receipt:
        """Sends it, waits for the other nodes for so long (``"2s"``), and fails if one of them does
        not confirm it."""
        return self._purge._send({**self.asked, "wait": time})


class _Patience:
    """Bounds an exchange as a whole: the timeout of a socket begins anew with each byte."""

    def __init__(self, limit: float) -> None:
        self._ends = time.monotonic() + limit
        self._timer: Optional[threading.Timer] = None
        self.is_over = False

    def watch(self, sock: socket.socket) -> socket.socket:
        """Breaks the connection off when the time is over, whatever waits for it."""
        left = max(self._ends - time.monotonic(), 0.0)
        self._timer = threading.Timer(left, self._break_off, (sock,))
        self._timer.daemon = True
        self._timer.start()
        return sock

    def _break_off(self, sock: socket.socket) -> None:
        self.is_over = True
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def check(self) -> None:
        """Raises if the time is over: what was read until then may be a part of the answer."""
        if self.is_over:
            raise TimeoutError("the time is over")

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _FinalResponse(http.client.HTTPResponse):
    """The answer itself, after those that only announce it (1xx): Python passes over 100 alone."""

    def _read_status(self):  # type: ignore[no-untyped-def]
        while True:
            version, status, reason = super()._read_status()
            if not 102 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _seconds(time: Optional[str]) -> float:
    found = re.fullmatch(r"([\d.]+)(ms|s|m|h|d)", time or "")
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    return float(found[1]) * units[found[2]] if found else 0.0


def _checked(token: Optional[str]) -> Optional[str]:
    """The token as a field can hold it. What is raised does not show it."""
    if token is None:
        return None
    text = token.strip() if isinstance(token, str) else "\n"
    if re.search(r"[^\x20-\x7e]", text):
        raise ValueError("token: expected a text of one line in printable ASCII characters")
    return text


def _judged(status: int, text: str, asked: Dict[str, Any]) -> Receipt:
    """The receipt, if it says that the purge holds everywhere that the order asks about."""
    receipt = _object(_parsed(text))
    if status != 200:
        error = receipt.get("error")
        refused = 400 <= status < 500 or (status == 503 and error in TURNED_AWAY)
        if refused and isinstance(error, str):
            raise PurgeRefused(f"refused with status {status}: {error}", status)
    if status != 200 or receipt.get("applied") is not True:
        message = f"the answer with status {status} is no receipt, and the purge may hold: {text[:200]}"
        raise PurgeUnknown(message, status=status)
    peers = _object(receipt.get("peers"))
    outcome = peers.get("outcome")
    if outcome == "unknown" or ("wait" in asked and outcome not in ("all", "some")):
        why = peers.get("reason", "no reason given")
        raise PurgeUnknown(f"nobody can tell where the purge holds: {why}", receipt, status)
    nodes = peers.get("nodes")
    each = [_object(node) for node in nodes] if isinstance(nodes, list) else []
    unconfirmed = [str(node.get("node")) for node in each if node.get("applied") is not True]
    never_heard = peers.get("never_heard")
    never_heard = never_heard if isinstance(never_heard, int) else 0
    unlogged = "l2" in receipt and _object(receipt["l2"]).get("logged") is not True
    if outcome == "some" or unconfirmed or never_heard > 0 or unlogged:
        who = []
        if unconfirmed:
            who.append(f"not confirmed by {', '.join(unconfirmed)}")
        if never_heard:
            who.append(f"{never_heard} more nodes were never heard")
        if unlogged:
            who.append("the second tier's log has not taken it yet")
        message = f"the purge holds on this node alone for certain: {'; '.join(who)}"
        raise PurgeIncomplete(message, receipt, unconfirmed, never_heard)
    return receipt


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _object(value: Any) -> Dict[str, Any]:
    """The value if it is an object, and an empty one otherwise."""
    return value if isinstance(value, dict) else {}
