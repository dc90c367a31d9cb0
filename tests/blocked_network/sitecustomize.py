"""Block every socket except loopback and AF_UNIX, in this process and, by PYTHONPATH, in its children.

An audit hook cannot be taken off again, and sees the calls of C extensions that go through Python's socket module.
"""

import socket
import sys

_LOOPBACK = ("127.", "::1", "localhost")


def _refuse(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        address = arguments[1]
        if isinstance(address, tuple) and address and not _is_local(address[0], event):
            raise OSError(f"the tests block the network: {event} to {address[0]}")
    elif event == "socket.getaddrinfo" and not _is_local(arguments[0], event):
        raise socket.gaierror(f"the tests block the network: look-up of {arguments[0]!r}")


def _is_local(host: object, event: str) -> bool:
    host = host.decode(errors="replace") if isinstance(host, bytes) else host
    if host is None:
        return True
    return str(host).startswith(_LOOPBACK) or (event == "socket.bind" and host == "")


sys.addaudithook(_refuse)
