"""What the test of the PyPI client says: purge.py ADMIN WHAT [ARGUMENT]."""

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from lamina_purge import (
    LaminaPurge,
    PurgeError,
    PurgeIncomplete,
    PurgeRefused,
    PurgeUnanswered,
    PurgeUnknown,
)

admin, what = sys.argv[1:3]
argument = sys.argv[3] if len(sys.argv) > 3 else ""
purge = LaminaPurge(admin)


def raised(kind, act):
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"{kind} was not raised")


def waits(purge):
    return purge.tags("a").wait("2s")


def plain(purge):
    return purge.tags("a").send()


def answered(status, text, order=waits, token=None):
    """Asks a server that answers everything so. Gives the receipt or the error, and the token."""
    tokens = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            tokens.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        try:
            got = order(LaminaPurge(f"http://127.0.0.1:{server.server_port}", token))
        except PurgeError as error:
            got = error
    return got, tokens


def token():
    """A token as a file has it, and one that no field can hold."""
    _, tokens = answered(200, "{}", plain, " sekret\n")
    assert tokens == ["Bearer sekret"], tokens
    for bad in ["sek\nret", "sekr\u00e9t", b"sekret"]:
        error = raised(ValueError, lambda: LaminaPurge(admin, bad))
        assert str(error).startswith("token: expected") and "sek" not in str(error), error


def receipts():
    """Only a receipt that says so is a purge that holds."""
    done = {"applied": True, "order": 1, "selectors": 1}
    whole = {"complete": True, "outcome": "all", "nodes": []}
    good, _ = answered(200, json.dumps({**done, "peers": whole}))
    assert good["peers"]["outcome"] == "all", good
    assert answered(200, json.dumps(done), plain)[0] == done
    deep = "[" * 100_000
    for text in ["{}", '{"purged":1}', "[]", "null", "1", "{", "", deep, '{"applied":false}', '{"applied":"true"}']:
        for order in [waits, plain]:
            got, _ = answered(200, text, order)
            assert isinstance(got, PurgeUnknown), (text[:20], got)
    for peers in [None, [], "all", {**whole, "outcome": "weird"}, {"complete": True}]:
        got, _ = answered(200, json.dumps({**done, "peers": peers}))
        assert isinstance(got, PurgeUnknown), (peers, got)
    assert isinstance(answered(200, json.dumps(done))[0], PurgeUnknown)
    got, _ = answered(200, json.dumps({**done, "applied": False, "peers": whole}))
    assert isinstance(got, PurgeUnknown), got
    nodes = [{"node": "b", "applied": False}]
    for more in [{"peers": {**whole, "nodes": nodes}}, {"peers": {"outcome": "some"}}, {"peers": whole, "l2": {}}]:
        got, _ = answered(200, json.dumps({**done, **more}))
        assert isinstance(got, PurgeIncomplete), (more, got)


def statuses():
    """What somebody between here and the gateway answers tells nothing about the purge."""
    known = ["another process has taken over: connect again", "too many admin requests are under way; try again"]
    for status, text, kind in [
        (400, json.dumps({"error": "no"}), PurgeRefused),
        (401, json.dumps({"error": "a token is needed"}), PurgeRefused),
        *[(503, json.dumps({"error": text}), PurgeRefused) for text in known],
        (503, json.dumps({"error": "upstream is away"}), PurgeUnknown),
        (504, json.dumps({"error": "too late"}), PurgeUnknown),
        (504, "<html>504</html>", PurgeUnknown),
        (500, "{}", PurgeUnknown),
        (502, "null", PurgeUnknown),
        (502, "[]", PurgeUnknown),
        (403, "null", PurgeUnknown),
        (202, json.dumps({"applied": True}), PurgeUnknown),
    ]:
        got, _ = answered(status, text, plain)
        assert type(got) is kind and got.status == status, (status, text, got)


def slow():
    """An answer that comes byte by byte is waited for as long as for none, and what only announces
    the answer is none."""

    def asked(script, timeout):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve():
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    try:
                        script(connection)
                    except OSError:
                        pass

            threading.Thread(target=serve, daemon=True).start()
            address = f"http://127.0.0.1:{server.getsockname()[1]}"
            return LaminaPurge(address, timeout=timeout).all().send()

    def drip(connection):
        for byte in b"HTTP/1.1 200 OK\r\n\r\n".ljust(10_000):
            connection.send(bytes([byte]))
            time.sleep(0.02)

    error = raised(PurgeUnanswered, lambda: asked(drip, 0.3))
    assert "within 0.3 s" in str(error), error

    def early(connection):
        receipt = b'{"applied": true, "order": 1}'
        connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(receipt)
        connection.send(head + receipt)

    assert asked(early, 10.0)["order"] == 1


def combined():
    a, b = purge.tags("a"), purge.tags("b")
    for order in [a.soft().and_(b), a.and_(b.soft())]:
        assert order.asked == {"tag": ["a", "b"], "soft": True}, order.asked
    assert a.and_(purge.all()).asked == {"tag": ["a"], "all": True}
    assert a.asked == {"tag": ["a"]}


def tags():
    receipt = purge.tags([argument, "no-such-tag"]).wait("20s")
    assert receipt["peers"]["outcome"] == "all", receipt
    assert receipt["selectors"] == 2, receipt


def selectors():
    order = purge.tags("a").and_(purge.prefix("/x/")).and_(purge.patterns(["*/y"])).soft()
    assert order.asked == {"tag": ["a"], "prefix": ["/x/"], "pattern": ["*/y"], "soft": True}
    assert order.send()["selectors"] == 3
    others = [purge.route("site"), purge.all(), purge.keys("f0e91127255610ee"), purge.urls(argument)]
    for one in others:
        assert one.send()["applied"] is True
    raised(ValueError, lambda: purge.tags([]))
    raised(ValueError, lambda: purge.tags(""))


def refused():
    error = raised(PurgeRefused, purge.urls("/relative").send)
    assert error.status == 400 and "absolute" in str(error), error
    error = raised(PurgeRefused, LaminaPurge("127.0.0.1:1").all().send)
    assert "nothing was purged" in str(error), error
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = LaminaPurge(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout=0.2)
        raised(PurgeUnanswered, silent.all().send)


def incomplete():
    error = raised(PurgeIncomplete, lambda: purge.tags("a").wait("300ms"))
    assert error.unconfirmed == [argument], error.unconfirmed
    assert f"not confirmed by {argument}" in str(error), error


def unknown():
    raised(PurgeUnknown, lambda: purge.tags("a").wait("300ms"))


globals()[what]()
