"""aiohttp server that calls another server with an aiohttp client.

asyncio_app.py PORT [--downstream URL] [--mode direct|before|both]
  direct  the handler calls at once
  before  a short random sleep before the call
  both    a random sleep before and after the call: sockets show no evidence of the parent
"""
import argparse
import asyncio
import random

import aiohttp
from aiohttp import web

arguments = argparse.ArgumentParser()
arguments.add_argument("port", type=int)
arguments.add_argument("--downstream")
arguments.add_argument("--mode", choices=["direct", "before", "both"], default="direct")
options = arguments.parse_args()
session = None


async def pause():
    await asyncio.sleep(random.random() * 0.01)


async def work(request):
    number = request.match_info["number"]
    if options.mode in ("before", "both"):
        await pause()
    async with session.get(f"{options.downstream}/leaf/{number}") as answer:
        data = await answer.read()
    if options.mode == "both":
        await pause()
    return web.Response(body=data)


async def leaf(request):
    return web.Response(text=request.match_info["number"])


async def root(_):
    return web.Response(text="ok\n")


async def main():
    global session
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))
    app = web.Application()
    app.add_routes([web.get("/work/{number}", work), web.get("/leaf/{number}", leaf), web.get("/", root)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=512).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
