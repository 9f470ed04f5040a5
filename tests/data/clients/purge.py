"""What the test of the PyPI client says: purge.py ADMIN WHAT [ARGUMENT]."""

import socket
import sys

from lamina_purge import (
    LaminaPurge,
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
