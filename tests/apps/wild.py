"""Servers and clients that leave the beaten path, both in one program.

    wild.py crash     the server dies in the middle of a request: killed, by itself, and with half of its answer sent
    wild.py fork      a process for each connection, whose end is the end of the answer
    wild.py half      the client says that it will send no more before the server takes the connection
    wild.py pipeline  requests that do not wait for answers, byte by byte and all at once
    wild.py giveup    the client closes while the server works
    wild.py unix      the server at a unix socket closes without an answer, or ends its answer by closing
    wild.py silent PATH  a server at a unix socket: it answers /slow late, and closes for others without an answer
"""

import os
import signal
import socket
import sys
import tempfile
import threading
import time

ROUNDS = 10


def listening():
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(64)
    return server


def head(connection):
    """The bytes up to the end of one head, and those after it."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        more = connection.recv(65536)
        if not more:
            return seen, b""
        seen += more
    first, _, rest = seen.partition(b"\r\n\r\n")
    return first, rest


def answers(connection):
    """All that comes until the end of the stream."""
    seen = b""
    while True:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            return seen
        if not more:
            return seen
        seen += more


def call(port, path, close=True):
    connection = socket.create_connection(("127.0.0.1", port))
    last = "Connection: close\r\n" if close else ""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: wild\r\n{last}\r\n".encode())
    return connection


def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def crash():
    for how in ["kill", "exit", "half"]:
        server = listening()

        def serve():
            connection, _ = server.accept()
            head(connection)
            time.sleep(0.15)
            if how == "half":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(3)

        pid = child(serve)
        connection = call(server.getsockname()[1], f"/{how}")
        server.close()
        answers(connection)
        connection.close()
        os.waitpid(pid, 0)


def fork():
    server = listening()

    def accept():
        for _ in range(ROUNDS):
            connection, _ = server.accept()

            def serve():
                head(connection)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                connection.sendall(b"until I end")

            pid = child(serve)
            connection.close()
            os.waitpid(pid, 0)

    pid = child(accept)
    for number in range(ROUNDS):
        connection = call(server.getsockname()[1], f"/fork/{number}")
        assert answers(connection).endswith(b"until I end")
        connection.close()
    os.waitpid(pid, 0)


def half():
    server = listening()

    def accept():
        for _ in range(ROUNDS):
            time.sleep(0.03)
            connection, _ = server.accept()
            head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            connection.close()

    pid = child(accept)
    for number in range(ROUNDS):
        connection = call(server.getsockname()[1], f"/half/{number}")
        connection.shutdown(socket.SHUT_WR)
        # The answer and the end have come before they are read.
        time.sleep(0.05)
        assert answers(connection).endswith(b"ok")
        connection.close()
    os.waitpid(pid, 0)


def pipeline():
    server = listening()

    def accept():
        for _ in range(2):
            connection, _ = server.accept()
            rest = b""
            for _ in range(ROUNDS):
                while b"\r\n\r\n" not in rest:
                    rest += connection.recv(65536)
                request, _, rest = rest.partition(b"\r\n\r\n")
                status = 404 if b"/3 " in request else 200
                connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status)
            connection.recv(1)

    pid = child(accept)
    for how in ["once", "bytes"]:
        connection = socket.create_connection(server.getsockname())
        requests = b"".join(b"GET /%s/%d HTTP/1.1\r\nHost: wild\r\n\r\n" % (how.encode(), n) for n in range(ROUNDS))
        if how == "once":
            connection.sendall(requests)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(requests)):
                connection.send(requests[at : at + 1])
        seen = b""
        while seen.count(b"\r\n\r\nok") < ROUNDS:
            seen += connection.recv(65536)
        connection.close()
    os.waitpid(pid, 0)


def giveup():
    server = listening()

    def accept():
        for _ in range(3):
            connection, _ = server.accept()
            head(connection)
            time.sleep(0.3)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except OSError:
                pass
            connection.close()

    pid = child(accept)
    for number in range(3):
        connection = call(server.getsockname()[1], f"/giveup/{number}")
        time.sleep(0.05)
        connection.close()
        time.sleep(0.4)
    os.waitpid(pid, 0)


def unix():
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(8)
    held, hold = os.pipe()

    def accept():
        os.close(hold)
        for number in range(4):
            connection, _ = server.accept()
            head(connection)
            time.sleep(0.05)
            if number % 2:
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nall of it")
            connection.close()
        # The end of the process must not be what tells.
        os.read(held, 1)

    pid = child(accept)
    for number in range(4):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.sendall(f"GET /unix/{number} HTTP/1.1\r\nHost: wild\r\n\r\n".encode())
        answers(connection)
        connection.close()
    time.sleep(0.5)
    os.close(hold)
    os.waitpid(pid, 0)
    folder.cleanup()


def silent():
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[2])
    server.listen(8)

    def serve(connection):
        if b"/slow" in head(connection)[0]:
            time.sleep(5)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.close()

    print("listening", flush=True)
    while True:
        threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()


WAYS = [crash, fork, half, pipeline, giveup, unix, silent]
{way.__name__: way for way in WAYS}[sys.argv[1]]()
