"""Importing this has NAME asked at ADDRESS:PORT, by RESOLVE=NAME=ADDRESS:PORT in the environment. It stands
for a line of /etc/hosts, for programs that have the address of an API built in."""

import os
import socket

if "RESOLVE" in os.environ:
    name, target = os.environ["RESOLVE"].split("=")
    address, port = target.split(":")
    resolve = socket.getaddrinfo

    def resolved_here(host, *others, **named):
        if host != name:
            return resolve(host, *others, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))]

    socket.getaddrinfo = resolved_here
