"""The suite's own block of the network holds, here and in child processes."""

import socket
import subprocess
import sys

import pytest

_TRY = """
import socket
for attempt in (lambda: socket.create_connection(("192.0.2.1", 80), 1), lambda: socket.getaddrinfo("example.org", 80)):
    try:
        attempt()
    except OSError as error:
        assert "tests block the network" in str(error), error
    else:
        raise SystemExit("reached the network")
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), 1).close()
"""


def test_in_this_process():
    with pytest.raises(OSError, match="tests block the network"):
        socket.create_connection(("192.0.2.1", 80), 1)
    with pytest.raises(OSError, match="tests block the network"):
        socket.getaddrinfo("example.org", 443)
    exec(_TRY)


def test_in_child_processes():
    subprocess.run([sys.executable, "-c", _TRY], check=True)
