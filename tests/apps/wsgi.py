"""A WSGI application for gunicorn with threads: /work/N calls $DOWNSTREAM/leaf/N on the same thread, /leaf/N answers N."""
import http.client
import os
import socket
import threading
import urllib.parse

downstream = urllib.parse.urlsplit(os.environ["DOWNSTREAM"]) if os.environ.get("DOWNSTREAM") else None
own = threading.local()


def call(path):
    connection = getattr(own, "connection", None)
    if connection is None:
        connection = own.connection = http.client.HTTPConnection(downstream.hostname, downstream.port)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.request("GET", path)
    return connection.getresponse().read()


def application(environ, start_response):
    path = environ["PATH_INFO"]
    data = b"ok\n"
    if path.startswith("/work/") and downstream:
        data = call("/leaf/" + path.split("/")[2])
    elif path.startswith("/leaf/"):
        data = path.split("/")[2].encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]
