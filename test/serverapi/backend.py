"""What the public Python library does with a node's server API. Every step is said on a line, "ok <step>"; the first that fails ends it."""

import asyncio
import os
import time

from cent import (AsyncClient, BatchRequest, BroadcastRequest, CentApiResponseError, CentUnauthorizedError, ChannelsRequest, Client, Disconnect,
                  DisconnectRequest, HistoryRemoveRequest, HistoryRequest, InfoRequest, PresenceRequest, PresenceStatsRequest, PublishRequest,
                  RefreshRequest, StreamPosition, SubscribeRequest, UnsubscribeRequest)
from cent.dto import ConnectionsRequest

API, KEY, CLIENT = os.environ["API"], os.environ["KEY"], os.environ["CLIENT"]


def fails(code, call):
    try:
        call()
    except CentApiResponseError as e:
        assert e.code == code, e
        return e.message
    raise AssertionError("no error")


def ok(step):
    print("ok " + step, flush=True)


def publishing(c):
    first = c.publish(PublishRequest(channel="open:p", data={"n": 1}, idempotency_key="k", tags={"from": "python"}))
    again = c.publish(PublishRequest(channel="open:p", data={"n": 2}, idempotency_key="k"))
    assert first.offset == again.offset == 1 and first.epoch == again.epoch, (first, again)
    ok("publish, once for an idempotency_key")
    res = c.broadcast(BroadcastRequest(channels=["open:p", "nowhere:p"], data={"n": 3}))
    assert res.responses[0].result.offset == 2 and res.responses[1].error.code == 102, res
    ok("broadcast, each with its own answer")
    assert fails(102, lambda: c.publish(PublishRequest(channel="nowhere:p", data=1))) == "unknown channel"
    assert "skip_history" in fails(108, lambda: c.publish(PublishRequest(channel="open:p", data=1, skip_history=True)))
    ok("errors have their code and their words")
    try:
        Client(API, "another key, which nobody has given").info(InfoRequest())
    except CentUnauthorizedError:
        ok("a wrong key is unauthorized")


def asking(c):
    page = c.history(HistoryRequest(channel="open:p", limit=10))
    assert [p.data["n"] for p in page.publications] == [1, 3] and page.publications[0].tags == {"from": "python"}, page
    rest = c.history(HistoryRequest(channel="open:p", limit=10, since=StreamPosition(offset=1, epoch=page.epoch), reverse=False))
    assert [p.offset for p in rest.publications] == [2] and rest.offset == 2, rest
    ok("history, and from a position on")
    members = c.presence(PresenceRequest(channel="open:p")).presence
    assert members[CLIENT].user == "ann", members
    stats = c.presence_stats(PresenceStatsRequest(channel="open:p"))
    assert stats.num_clients == stats.num_users == 1, stats
    ok("presence and presence_stats")
    assert c.channels(ChannelsRequest(pattern="open:*")).channels["open:p"].num_clients == 1
    found = c.connections(ConnectionsRequest(user="ann", expression="")).connections
    assert found[CLIENT].user == "ann" and "open:p" in found[CLIENT].state.channels, found
    ok("channels and connections")
    nodes = c.info(InfoRequest()).nodes
    assert sorted(n.name for n in nodes) == ["node-1", "node-2"] and all(n.uid and n.version for n in nodes), nodes
    ok("info")
    c.history_remove(HistoryRemoveRequest(channel="open:p"))
    empty = c.history(HistoryRequest(channel="open:p", limit=10))
    assert empty.publications == [] and empty.offset == 2 and empty.epoch == page.epoch, empty
    ok("history_remove leaves the position")


def batches(c):
    for parallel in (False, True):
        res = c.batch(BatchRequest(requests=[PublishRequest(channel="open:b", data=1), PresenceStatsRequest(channel="open:b")], parallel=parallel))
        assert res.replies[0].epoch and res.replies[1].num_clients == 0, res
    ok("batch")


def orders(c):
    c.subscribe(SubscribeRequest(user="ann", client=CLIENT, channel="open:s", data={"why": "invited"}, info={"seat": 7}))
    assert c.presence(PresenceRequest(channel="open:s")).presence[CLIENT].chan_info == {"seat": 7}
    c.publish(PublishRequest(channel="open:s", data={"n": 4}))
    c.unsubscribe(UnsubscribeRequest(user="ann", channel="open:s"))
    c.refresh(RefreshRequest(user="ann", expire_at=int(time.time()) + 3600))
    assert "recover_since" not in fails(112, lambda: c.subscribe(
        SubscribeRequest(user="ann", client=CLIENT, channel="open:s", recover_since=StreamPosition(offset=1, epoch="another"))))
    ok("subscribe, unsubscribe and refresh")


async def asynchronous():
    c = AsyncClient(API, KEY)
    try:
        await asyncio.gather(*(c.publish(PublishRequest(channel="open:p", data={"n": 5}, idempotency_key="same")) for _ in range(20)))
    finally:
        await c.close()
    ok("the asynchronous client, and twenty at once with one key")


def main():
    with Client(API, KEY) as c:
        publishing(c)
        asking(c)
        batches(c)
        orders(c)
        asyncio.run(asynchronous())
        c.disconnect(DisconnectRequest(user="ann", whitelist=["another"], disconnect=Disconnect(code=4555, reason="moved house")))
        ok("disconnect")


main()
print("done", flush=True)
