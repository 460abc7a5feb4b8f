"""HTTP/1.1 over TLS by a libssl that is called directly: the library need not be the one that Python uses.

libssl.py FOLDER server PORT CERT KEY [memory]
  answers /leaf/N with N, one thread a connection
libssl.py FOLDER client PORT REQUESTS CONNECTIONS [memory]
  waits for a line on standard input, asks for /leaf/1 to /leaf/REQUESTS, and says `done SENT GOOD`

FOLDER has libssl and libcrypto. With `memory` the program moves the encrypted bytes itself (memory BIOs); else the library reads and
writes the socket.
"""

import ctypes
import glob
import socket
import sys
import threading

folder, role, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
memory = sys.argv[-1] == "memory"


def load(name):
    return ctypes.CDLL(glob.glob(f"{folder}/{name}*.so*")[0], ctypes.RTLD_GLOBAL)


crypto = load("libcrypto")
ssl = load("libssl")
P = ctypes.c_void_p
for library, name, result, arguments in [
    (ssl, "TLS_method", P, []),
    (ssl, "SSL_CTX_new", P, [P]),
    (ssl, "SSL_CTX_use_certificate_file", ctypes.c_int, [P, ctypes.c_char_p, ctypes.c_int]),
    (ssl, "SSL_CTX_use_PrivateKey_file", ctypes.c_int, [P, ctypes.c_char_p, ctypes.c_int]),
    (ssl, "SSL_new", P, [P]),
    (ssl, "SSL_free", None, [P]),
    (ssl, "SSL_set_fd", ctypes.c_int, [P, ctypes.c_int]),
    (ssl, "SSL_set_bio", None, [P, P, P]),
    (ssl, "SSL_set_accept_state", None, [P]),
    (ssl, "SSL_set_connect_state", None, [P]),
    (ssl, "SSL_do_handshake", ctypes.c_int, [P]),
    (ssl, "SSL_read", ctypes.c_int, [P, P, ctypes.c_int]),
    (ssl, "SSL_write", ctypes.c_int, [P, P, ctypes.c_int]),
    (ssl, "SSL_get_error", ctypes.c_int, [P, ctypes.c_int]),
    (crypto, "BIO_s_mem", P, []),
    (crypto, "BIO_new", P, [P]),
    (crypto, "BIO_read", ctypes.c_int, [P, P, ctypes.c_int]),
    (crypto, "BIO_write", ctypes.c_int, [P, P, ctypes.c_int]),
    (crypto, "OpenSSL_version", ctypes.c_char_p, [ctypes.c_int]),
]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments

context = ssl.SSL_CTX_new(ssl.TLS_method())
if role == "server":
    for use, path in [(ssl.SSL_CTX_use_certificate_file, sys.argv[4]), (ssl.SSL_CTX_use_PrivateKey_file, sys.argv[5])]:
        if use(context, path.encode(), 1) != 1:
            sys.exit(f"{path} is not taken")


class Stream:
    """A connection's plaintext."""

    def __init__(self, sock):
        self.sock, self.object = sock, ssl.SSL_new(context)
        self.buffer = ctypes.create_string_buffer(16384)
        if memory:
            self.incoming, self.outgoing = (crypto.BIO_new(crypto.BIO_s_mem()) for _ in range(2))
            ssl.SSL_set_bio(self.object, self.incoming, self.outgoing)
        else:
            ssl.SSL_set_fd(self.object, sock.fileno())
        (ssl.SSL_set_accept_state if role == "server" else ssl.SSL_set_connect_state)(self.object)
        self.call(ssl.SSL_do_handshake, self.object)

    def call(self, function, *arguments):
        while True:
            result = function(*arguments)
            if memory:
                self.flush()
            if result > 0:
                return result
            if not (memory and ssl.SSL_get_error(self.object, result) == 2):
                return 0
            data = self.sock.recv(16384)
            if not data:
                return 0
            crypto.BIO_write(self.incoming, data, len(data))

    def flush(self):
        out = ctypes.create_string_buffer(32768)
        while (count := crypto.BIO_read(self.outgoing, out, len(out))) > 0:
            self.sock.sendall(out.raw[:count])

    def read(self):
        count = self.call(ssl.SSL_read, self.object, self.buffer, len(self.buffer))
        return self.buffer.raw[:count]

    def write(self, data):
        self.call(ssl.SSL_write, self.object, data, len(data))

    def close(self):
        ssl.SSL_free(self.object)
        self.sock.close()


def serve(sock):
    stream = Stream(sock)
    while request := stream.read():
        body = request.split()[1].rsplit(b"/")[-1]
        stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    stream.close()


def ask(numbers, good):
    stream = Stream(socket.create_connection(("127.0.0.1", port)))
    for number in numbers:
        stream.write(b"GET /leaf/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
        answer = stream.read()
        good.append(answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n%d" % number))
    stream.close()


if role == "server":
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    print(f"ready {crypto.OpenSSL_version(0).decode()}", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

requests, connections = int(sys.argv[4]), int(sys.argv[5])
print("ready", flush=True)
sys.stdin.readline()
good = []
threads = [
    threading.Thread(target=ask, args=(range(1 + first, requests + 1, connections), good)) for first in range(connections)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"done {requests} {sum(good)}", flush=True)
