"""Starts a program with sockets, as systemd does for a `.socket` unit that has several kinds of them.

    activate.py KIND:HOST:PORT:NAME ... -- PROGRAM ARGUMENT ...

KIND is `stream` or `datagram`. Of one kind and address there may be several.
"""

import os
import socket
import sys

KINDS = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}
FIRST = 3


def opened(wanted):
    kind, rest = wanted.split(":", 1)
    host, port, name = rest.rsplit(":", 2)
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, KINDS[kind])
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((host, int(port)))
    if kind == "stream":
        one.listen()
    return one, name


def main():
    end = sys.argv.index("--")
    sockets = [opened(wanted) for wanted in sys.argv[1:end]]
    # Out of the way of the numbers that they get.
    high = [os.dup2(one.fileno(), 100 + n) for n, (one, _) in enumerate(sockets)]
    for n, descriptor in enumerate(high):
        os.dup2(descriptor, FIRST + n, inheritable=True)
    os.environ["LISTEN_FDS"] = str(len(sockets))
    os.environ["LISTEN_FDNAMES"] = ":".join(name for _, name in sockets)
    os.environ["LISTEN_PID"] = str(os.getpid())
    for descriptor in high:
        os.close(descriptor)
    os.execv(sys.argv[end + 1], sys.argv[end + 1 :])


main()
