"""http.server with a thread per connection, HTTP/1.1 keep-alive.

threaded.py PORT [--downstream URL] [--body BYTES] [--delay-ms N]
  /work/N   calls DOWNSTREAM/leaf/N on the same thread, answers with what came
  /leaf/N   answers N, after a random delay of at most --delay-ms
  /hash     answers the request's body, and adds all bytes of the request to a digest
  /digest   answers that digest
"""
import argparse
import hashlib
import http.client
import random
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

arguments = argparse.ArgumentParser()
arguments.add_argument("port", type=int)
arguments.add_argument("--downstream")
arguments.add_argument("--body", type=int, default=0)
arguments.add_argument("--delay-ms", type=float, default=0)
arguments.add_argument("--host", default="127.0.0.1")
options = arguments.parse_args()
downstream = urllib.parse.urlsplit(options.downstream) if options.downstream else None
own = threading.local()
lock = threading.Lock()
seen = 0


def call(path):
    """Asks the next server, on a connection of this thread."""
    connection = getattr(own, "connection", None)
    if connection is None:
        connection = own.connection = http.client.HTTPConnection(downstream.hostname, downstream.port)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def answer(self):
        global seen
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        status, data = 200, b"ok\n"
        parts = self.path.split("/")
        if self.path.startswith("/work/") and downstream:
            status, data = call("/leaf/" + parts[2])
        elif self.path.startswith("/leaf/"):
            if options.delay_ms:
                time.sleep(random.random() * options.delay_ms / 1000)
            data = parts[2].encode()
        elif self.path.startswith("/hash"):
            whole = self.raw_requestline + self.headers.as_bytes() + body
            with lock:
                seen = (seen + int.from_bytes(hashlib.sha256(whole).digest()[:8], "big")) % 2**64
            data = body
        elif self.path == "/digest":
            data = str(seen).encode()
        elif options.body:
            data = b"x" * options.body
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True


server = Server((options.host, options.port), Handler)
print("ready", flush=True)
server.serve_forever()
