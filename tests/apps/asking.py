"""Web server that asks PostgreSQL and Redis.

gunicorn asking:application  with threads: psycopg2, psycopg and redis-py, connections of each thread its own
asking.py PORT               one event loop: aiohttp, asyncpg and redis.asyncio, connections in pools

/work/N puts N modulo 50 into the names of columns, so that a statement tells which request it is of, and answers N.
$POSTGRES is a URL, $REDIS a port.
"""
import asyncio
import os
import sys
import threading

own = threading.local()
KINDS = 50


def connect():
    import psycopg
    import psycopg2
    import redis

    own.two = psycopg2.connect(os.environ["POSTGRES"])
    own.three = psycopg.connect(os.environ["POSTGRES"], autocommit=True)
    own.store = redis.Redis(port=int(os.environ["REDIS"]))


def ask(n):
    if not hasattr(own, "store"):
        connect()
    with own.two, own.two.cursor() as cursor:
        text = f"select %s + 0 as two_{n % KINDS}_ from pgbench_branches where %s <> 'x'"
        cursor.execute(text, (n, "secret"))
        assert cursor.fetchone() == (n,)
    text = f"select %s::int + 0 as three_{n % KINDS}_ from pgbench_branches where %s <> 'x'"
    assert own.three.execute(text, (n, "secret")).fetchone() == (n,)
    own.store.set(f"secret-{n}", n)
    return own.store.get(f"secret-{n}")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    data = ask(int(path.split("/")[2])) if path.startswith("/work/") else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]


async def main(port):
    import asyncpg
    from aiohttp import web
    from redis import asyncio as redis

    pool = await asyncpg.create_pool(os.environ["POSTGRES"], min_size=0, max_size=16)
    store = redis.Redis(port=int(os.environ["REDIS"]), max_connections=64)

    async def work(request):
        n = int(request.match_info["n"])
        text = f"select $1::int + 0 as two_{n % KINDS}_ from pgbench_branches where $2 <> 'x'"
        assert await pool.fetchval(text, n, "secret") == n
        await store.set(f"secret-{n}", n)
        return web.Response(body=await store.get(f"secret-{n}"))

    async def root(_):
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/work/{n}", work), web.get("/", root)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=512).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
