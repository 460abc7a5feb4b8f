"""Client: opens a connection and makes one request, says "ready", waits for SIGUSR1, makes /leaf/1 to /leaf/200 on the same
connection and on new ones in turn, says "done", and waits to be ended.

caller.py HOST:PORT
"""
import http.client
import signal
import socket
import sys
import time

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
host, port = sys.argv[1].rsplit(":", 1)


def connect():
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    data = answer.read()
    assert answer.status == 200, (answer.status, data)


old = connect()
ask(old, "/before")
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
for number in range(1, 201):
    if number % 2:
        ask(old, f"/leaf/{number}")
    else:
        new = connect()
        ask(new, f"/leaf/{number}")
        new.close()
print("done", flush=True)
while True:
    time.sleep(60)
