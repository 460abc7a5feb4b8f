"""gRPC-Web, Connect, streams of events and WebSockets over HTTP/1.1.

web.py server PORT [CERT KEY]
web.py client URL REQUESTS [CA]
    waits for a line on standard input, makes the requests, and says `done SENT GOOD`
"""

import base64
import http.client
import http.server
import ssl
import struct
import sys
import urllib.parse

what, where, *rest = sys.argv[1:]
EVENTS = 3
KINDS = ["web", "text", "head", "connect", "events", "close", "socket"]


def frame(flags, text):
    return struct.pack(">BI", flags, len(text)) + text


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, fields, parts, chunked=True):
        self.send_response(status)
        for field in fields.items():
            self.send_header(*field)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content = self.headers["Content-Type"]
        code = int(self.path.rsplit("/", 1)[1][1:])
        if "grpc-web" not in content:
            return self.say(404 if code else 200, {"Content-Type": content, "Content-Length": "2"}, [b"ok"], chunked=False)
        if self.path.startswith("/load.Head/"):
            fields = {"Content-Type": content, "grpc-status": str(code), "Content-Length": "0"}
            return self.say(200, fields, [], chunked=False)
        encode = base64.b64encode if "text" in content else bytes
        message = base64.b64decode(body) if "text" in content else body
        trailers = frame(0x80, b"grpc-status: %d\r\ngrpc-message: as asked\r\n" % code)
        self.say(200, {"Content-Type": content}, [encode(message), encode(trailers)])

    def do_GET(self):
        if self.path.startswith("/socket/"):
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.write(self.rfile.read(4))
            self.close_connection = True
            return
        parts = [b"data: %d\n\n" % number for number in range(EVENTS)]
        chunked = self.path.startswith("/events/")
        fields = {"Content-Type": "text/event-stream"}
        if not chunked:
            fields["Connection"] = "close"
        self.say(200, fields, parts, chunked)


def serve(port, cert=None, key=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()


def one(connect, kept, number):
    """Whether a request was answered as it must be."""
    kind, code = KINDS[number % len(KINDS)], number // len(KINDS) % 17
    if kind == "socket":
        sock = connect()
        sock.connect()
        sock = sock.sock
        sock.sendall(b"GET /socket/%d HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" % number)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        sock.sendall(b"\x81\x02hi")
        answer = b""
        while more := sock.recv(4096):
            answer += more
        sock.close()
        return head.startswith(b"HTTP/1.1 101") and answer == b"\x81\x02hi"
    if kind in ("events", "close"):
        kept.request("GET", f"/{kind}/{number}")
        answer = kept.getresponse()
        return answer.status == 200 and answer.read().count(b"data:") == EVENTS
    message = frame(0, b"hello")
    service, content, body = {
        "web": ("load.Web", "application/grpc-web+proto", message),
        "text": ("load.Text", "application/grpc-web-text", base64.b64encode(message)),
        "head": ("load.Head", "application/grpc-web+proto", message),
        "connect": ("load.Connect", "application/proto", b"hello"),
    }[kind]
    fields = {"Content-Type": content, **({"Connect-Protocol-Version": "1"} if kind == "connect" else {})}
    kept.request("POST", f"/{service}/C{code}", body, fields)
    answer = kept.getresponse()
    answer.read()
    return answer.status == (404 if kind == "connect" and code else 200)


def call(url, requests, ca=None):
    where = urllib.parse.urlsplit(url).netloc
    context = ca and ssl.create_default_context(cafile=ca)

    def connect():
        if context:
            return http.client.HTTPSConnection(where, context=context)
        return http.client.HTTPConnection(where)

    kept = connect()
    print("ready", flush=True)
    sys.stdin.readline()
    good = sum(one(connect, kept, number) for number in range(requests))
    print("done", requests, good, flush=True)


if what == "server":
    serve(int(where), *rest)
else:
    call(where, int(rest[0]), *rest[1:])
