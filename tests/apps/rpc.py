"""gRPC server and client with grpcio, for the methods that tests/apps/go/rpc describes (but for W).

rpc.py server PORT [CERT KEY]
rpc.py client HOST:PORT REQUESTS CONNECTIONS STREAMS [CA]
    waits for a line on standard input, calls U, S, C and B in turn with every status, and says `done SENT GOOD`
"""

import itertools
import sys
import threading
from concurrent import futures

import grpc

what, where, *rest = sys.argv[1:]
MESSAGES = 3
KINDS = "USCB"
CODES = {code.value[0]: code for code in grpc.StatusCode}


def message(text):
    """A google.protobuf.StringValue."""
    return b"\x0a" + bytes([len(text)]) + text.encode()


class Service(grpc.GenericRpcHandler):
    def service(self, call):
        service, _, method = call.method.lstrip("/").partition("/")
        if service != "load.Work" or method[0] not in "USCBL":
            return None
        letter, code = method[0], int(method[1:])

        def end(context):
            if letter != "L" and code:
                context.abort(CODES[code], "as asked")

        def unary(request, context):
            end(context)
            return request

        def give(request, context):
            yield from itertools.repeat(request, MESSAGES)
            end(context)

        def take(requests, context):
            last = [*requests][-1]
            end(context)
            return last

        def both(requests, context):
            yield from requests
            end(context)

        return {
            "U": grpc.unary_unary_rpc_method_handler(unary),
            "L": grpc.unary_unary_rpc_method_handler(unary),
            "S": grpc.unary_stream_rpc_method_handler(give),
            "C": grpc.stream_unary_rpc_method_handler(take),
            "B": grpc.stream_stream_rpc_method_handler(both),
        }[letter]


def serve(port, cert=None, key=None):
    server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[Service()])
    address = f"127.0.0.1:{port}"
    if cert:
        with open(cert, "rb") as chain, open(key, "rb") as secret:
            server.add_secure_port(address, grpc.ssl_server_credentials([(secret.read(), chain.read())]))
    else:
        server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def one(channel, number):
    kind, code = KINDS[number % 4], number // 4 % 17
    name = f"{kind}{code}"
    path, text, status = "/load.Work/" + name, message(name), 0
    try:
        if kind == "U":
            got = [channel.unary_unary(path)(text)]
        elif kind == "S":
            got = [*channel.unary_stream(path)(text)]
        elif kind == "C":
            got = [channel.stream_unary(path)(itertools.repeat(text, MESSAGES))]
        else:
            got = [*channel.stream_stream(path)(itertools.repeat(text, MESSAGES))]
        right = all(part == text for part in got) and len(got) == (MESSAGES if kind in "SB" else 1)
    except grpc.RpcError as error:
        status, right = error.code().value[0], True
    return right and status == code


def load(address, count, connections, streams, ca=None):
    def channel():
        # Channels with the same options share a connection otherwise.
        options = [("grpc.use_local_subchannel_pool", 1)]
        if not ca:
            return grpc.insecure_channel(address, options)
        with open(ca, "rb") as file:
            return grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()), options)

    channels = [channel() for _ in range(connections)]
    print("ready", flush=True)
    sys.stdin.readline()
    numbers, good, lock = itertools.count(), 0, threading.Lock()

    def run(channel):
        nonlocal good
        while (number := next(numbers)) < count:
            right = one(channel, number)
            with lock:
                good += right

    threads = [threading.Thread(target=run, args=(channels[n % connections],)) for n in range(connections * streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", count, good, flush=True)


if what == "server":
    serve(where, *rest)
else:
    load(where, *map(int, rest[:3]), *rest[3:])
