"""Python servers and clients that speak TLS or HTTP/2.

secure.py server PORT threaded|asyncio CERT KEY [DOWNSTREAM CA]
    /leaf/N answers N, /work/N calls /leaf/N downstream (with requests, or aiohttp)
secure.py client URL requests|aiohttp|httpx REQUESTS AT_ONCE CA
    waits for a line on standard input, asks for /leaf/1 to /leaf/REQUESTS, and says `done SENT GOOD`; httpx speaks HTTP/2
"""

import asyncio
import concurrent.futures
import http.server
import itertools
import socket
import ssl
import sys
import threading

what, where, kind, *rest = sys.argv[1:]


def trust(path):
    return ssl.create_default_context(cafile=path)


def session(ca):
    import requests

    made = requests.Session()
    # Else a bundle that the environment names would be taken instead.
    made.trust_env = False
    made.verify = ca
    return made


def threaded(port, cert, key, downstream=None, ca=None):
    local = threading.local()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            # In the connection's own thread: the handshake must not hold up the others.
            self.request.do_handshake()
            super().setup()

        def do_GET(self):
            _, first, number, *_ = self.path.split("/") + [""]
            data = b"ok\n"
            if first == "leaf":
                data = number.encode()
            elif first == "work" and downstream:
                if not hasattr(local, "session"):
                    local.session = session(ca)
                data = local.session.get(f"{downstream}/leaf/{number}").content
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True

        def get_request(self):
            accepted, address = super().get_request()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False), address

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = Server(("127.0.0.1", int(port)), Handler)
    print("ready", flush=True)
    server.serve_forever()


def asyncio_server(port, cert, key, downstream=None, ca=None):
    import aiohttp
    from aiohttp import web

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def main():
        client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64, ssl=trust(ca) if ca else True))

        async def leaf(request):
            return web.Response(text=request.match_info["n"])

        async def work(request):
            async with client.get(f"{downstream}/leaf/{request.match_info['n']}") as answer:
                return web.Response(body=await answer.read())

        async def other(_):
            return web.Response(text="ok\n")

        app = web.Application()
        app.add_routes([web.get("/leaf/{n}", leaf), web.get("/work/{n}", work), web.get("/", other)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(port), ssl_context=context, backlog=512).start()
        print("ready", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


def load_threads(url, count, at_once, ca):
    numbers, good = itertools.count(1), itertools.count()
    barrier = threading.Barrier(at_once + 1)

    def run():
        client = session(ca)
        barrier.wait()
        while (number := next(numbers)) <= count:
            answer = client.get(f"{url}/leaf/{number}")
            if answer.status_code == 200 and answer.text == str(number):
                next(good)

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(run) for _ in range(at_once)]
        wait_for_go()
        barrier.wait()
    for each in running:
        each.result()
    print("done", count, next(good), flush=True)


def load_asyncio(url, count, at_once, ca):
    async def main():
        if kind == "httpx":
            import httpx

            client = httpx.AsyncClient(http1=False, http2=True, verify=trust(ca) if ca else True)

            async def get(path):
                answer = await client.get(url + path)
                return answer.status_code, answer.text, answer.http_version
        else:
            import aiohttp

            client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once, ssl=trust(ca) if ca else True))

            async def get(path):
                async with client.get(url + path) as answer:
                    return answer.status, await answer.text(), ""

        numbers, good = itertools.count(1), 0

        async def run():
            nonlocal good
            while (number := next(numbers)) <= count:
                status, text, version = await get(f"/leaf/{number}")
                good += status == 200 and text == str(number) and version in ("", "HTTP/2")

        wait_for_go()
        await asyncio.gather(*(run() for _ in range(at_once)))
        print("done", count, good, flush=True)
        await (client.aclose() if kind == "httpx" else client.close())

    asyncio.run(main())


def wait_for_go():
    print("ready", flush=True)
    sys.stdin.readline()


if what == "server":
    (threaded if kind == "threaded" else asyncio_server)(where, *rest)
else:
    (load_threads if kind == "requests" else load_asyncio)(where, int(rest[0]), int(rest[1]), rest[2] if len(rest) > 2 else None)
