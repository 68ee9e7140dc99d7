"""The scene of strangers_test.go, played by the public client from PyPI, over JSON or Protobuf."""

import asyncio
import json
import os

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

PROTOBUF = os.environ["FORMAT"] == "protobuf"
CHANNEL, BYTES = os.environ["CHANNEL"], os.environ["BYTES"]


def say(*words):
    print(*words, flush=True)


def encode(value):
    return json.dumps(value, separators=(",", ":")).encode() if PROTOBUF else value


def decode(data):
    return json.loads(data) if PROTOBUF else data


def text(data):
    return json.dumps(decode(data), separators=(",", ":"))


class ClientEvents(ClientEventHandler):
    async def on_disconnected(self, ctx):
        say("disconnected", ctx.code)


class Events(SubscriptionEventHandler):
    def __init__(self, ended):
        self.ended = ended

    async def on_subscribed(self, ctx):
        say("subscribed", str(ctx.was_recovering).lower(), str(ctx.recovered).lower())

    async def on_publication(self, ctx):
        say("got", ctx.pub.offset, text(ctx.pub.data))
        if "end" in decode(ctx.pub.data):
            self.ended.set()


class Bytes(SubscriptionEventHandler):
    def __init__(self, heard):
        self.heard = heard

    async def on_publication(self, ctx):
        self.heard.set_result(ctx.pub.data)


async def fresh():
    say("refreshed")
    return os.environ["FRESH"]


async def main():
    client = Client(
        os.environ["URL"], events=ClientEvents(), token=os.environ["TOKEN"], get_token=fresh, use_protobuf=PROTOBUF, min_reconnect_delay=0.02,
        max_reconnect_delay=0.3, timeout=30, proxy=None,
    )
    ended = asyncio.Event()
    sub = client.new_subscription(CHANNEL, events=Events(ended), join_leave=True, min_resubscribe_delay=0.02, max_resubscribe_delay=0.3)
    await client.connect()
    await sub.subscribe()
    await sub.ready(timeout=60)
    say("presence", ",".join(c.user for c in (await sub.presence()).clients.values()))
    await sub.publish(encode({"from": "pypi"}))
    say("history", ",".join(text(p.data) for p in (await sub.history(limit=10)).publications))
    say("rpc", "number" if isinstance(decode((await client.rpc("time", encode({}))).data)["time"], int) else "?")
    if PROTOBUF:
        heard = asyncio.get_running_loop().create_future()
        other = client.new_subscription(BYTES, events=Bytes(heard))
        await other.subscribe()
        await other.publish(bytes([0, 255, 10]))
        say("bytes", ",".join(str(b) for b in await asyncio.wait_for(heard, 60)))
        await other.unsubscribe()
    say("ready")
    await ended.wait()
    await client.disconnect()


asyncio.run(main())
