"""A service manager that keeps the sockets of its service, and restarts it under load.

restarts.py LAMINA CONFIG PORT RESTARTS: prints as JSON how many connections were answered and which
were not, and how many descriptors and which names were kept.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

lamina, config, port, restarts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind("\0lamina-restarts-%d" % os.getpid())
notify.settimeout(60)
kept = {}


def hear(wanted):
    """Reads messages until one begins like this; keeps and drops descriptors as it is told."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(notify, 4096, 253)
        lines = dict(line.split("=", 1) for line in message.decode().split("\n") if "=" in line)
        name = lines.get("FDNAME")
        if lines.get("FDSTORE") == "1":
            known = kept.setdefault(name, [])
            inodes = {os.fstat(fd).st_ino for fd in known}
            for fd in descriptors:
                if os.fstat(fd).st_ino in inodes:
                    os.close(fd)
                else:
                    known.append(fd)
        if lines.get("FDSTOREREMOVE") == "1":
            for fd in kept.pop(name, []):
                os.close(fd)
        if wanted in lines:
            return lines


def start():
    given = [(name, fd) for name, fds in kept.items() for fd in fds]

    def place():
        # First out of the way, then to where they belong.
        high = [os.dup2(fd, 500 + n) for n, (_, fd) in enumerate(given)]
        for n, fd in enumerate(high):
            os.dup2(fd, 3 + n)
            os.close(fd)

    environment = dict(os.environ, NOTIFY_SOCKET="@lamina-restarts-%d" % os.getpid())
    if given:
        environment["LISTEN_FDS"] = str(len(given))
        environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in given)
    command = ["sh", "-c", "export LISTEN_PID=$$; exec \"$0\" run -c \"$1\"", lamina, config]
    process = subprocess.Popen(
        command, env=environment, close_fds=False, preexec_fn=place, stderr=subprocess.DEVNULL
    )
    hear("READY")
    return process


answered, failed = 0, []
stop = threading.Event()


def load():
    global answered
    while not stop.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(b"GET /page HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                answer = b""
                while chunk := client.recv(4096):
                    answer += chunk
            if answer.startswith(b"HTTP/1.1 200"):
                answered += 1
            else:
                failed.append(repr(answer[:60]))
        except OSError as error:
            failed.append(repr(error))


process = start()
clients = [threading.Thread(target=load) for _ in range(4)]
for client in clients:
    client.start()
gaps = []
for _ in range(restarts):
    before = answered
    while answered < before + 50:
        time.sleep(0.01)
    began = time.time()
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    process = start()
    gaps.append(round(time.time() - began, 2))
before = answered
while answered < before + 50:
    time.sleep(0.01)
stop.set()
for client in clients:
    client.join()
process.send_signal(signal.SIGTERM)
process.wait(60)
names = {name: len(fds) for name, fds in kept.items()}
print(json.dumps({"answered": answered, "failed": failed, "kept": names, "seconds": gaps}))
