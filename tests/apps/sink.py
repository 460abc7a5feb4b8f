"""Raw TCP server for hostile bytes: sink.py PORT echo|swallow|foreign

echo     sends back what comes
swallow  reads to the end, then answers 200
foreign  answers END to each line, as memcached does that has nothing
"""
import socket
import sys
import threading

mode = sys.argv[2]


def serve(connection):
    with connection:
        try:
            if mode == "foreign":
                lines = connection.makefile("rb")
                while lines.readline():
                    connection.sendall(b"END\r\n")
                return
            while data := connection.recv(65536):
                if mode == "echo":
                    connection.sendall(data)
            if mode == "swallow":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except OSError:
            pass


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
print("ready", flush=True)
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
