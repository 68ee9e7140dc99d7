// The hooks against real node processes and a real Redis.
import { QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { cleanup, render, waitFor } from "@testing-library/react";
import {
  type ChannelEvents,
  type Close,
  Connection,
  type Publication,
  TidelineProvider,
  UnauthorizedError,
  type UseConnection,
  type UsePresence,
  useChannel,
  useConnection,
  usePresence,
} from "@tideline/react";
import { useQueryChannel } from "@tideline/react/query";
import { type ReactNode, StrictMode } from "react";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { Fleet, type RunningNode, token } from "./fleet";

const fleet = new Fleet();
let one: RunningNode;
let two: RunningNode;
beforeAll(async () => {
  await fleet.start();
  [one, two] = await Promise.all([fleet.node("one"), fleet.node("two")]);
});
afterAll(() => fleet.stop());

const talkers: Connection[] = [];
afterEach(() => {
  cleanup();
  for (const talker of talkers.splice(0)) talker.disconnect();
});

let rooms = 0;
const room = () => `chat:room-${++rooms}`;
// A machine may stand still for seconds: what must come is waited for longer, and commands too.
const soon = { timeout: 60_000, interval: 20 };
const timeout = 30_000;

/** Somebody else, on another node: publishes in a room. */
function talker(channel: string, user = "talker", node = two) {
  const connection = new Connection({
    url: node.url,
    getToken: async () => token(user),
    websocket: WebSocket,
    timeout,
  });
  talkers.push(connection);
  connection.connect();
  const leave = connection.channel(channel).hold({});
  const ready = waitFor(() => expect(connection.channel(channel).snapshot().state).toBe("subscribed"), soon);
  return {
    connection,
    leave,
    ready,
    say: async (text: string) => {
      await ready;
      await connection.rpc("publish", { channel, data: { text }, id: `${channel} ${text}` });
    },
  };
}

interface Stamped {
  data: { text: string };
}

function page(children: ReactNode, node = one, getToken = async () => token("reader")) {
  return render(
    <StrictMode>
      <TidelineProvider
        url={node.url}
        getToken={getToken}
        websocket={WebSocket}
        timeout={timeout}
        minReconnectDelay={50}
        maxReconnectDelay={300}
      >
        {children}
      </TidelineProvider>
    </StrictMode>,
  );
}

/** A component that hears a channel and leaves everything it saw in `seen`. */
function listener(channel: string) {
  const seen = {
    publications: [] as Publication<Stamped>[],
    recovered: [] as number[],
    resyncs: 0,
    state: "",
    connection: undefined as UseConnection | undefined,
  };
  const events: ChannelEvents<Stamped> = {
    onPublication: (p) => seen.publications.push(p),
    onRecovered: (count) => seen.recovered.push(count),
    onResync: () => {
      seen.resyncs++;
    },
  };
  function Listener() {
    seen.connection = useConnection();
    seen.state = useChannel<Stamped>(channel, events).state;
    return null;
  }
  const texts = () => seen.publications.map((p) => p.data.data.text);
  const subscribed = () => waitFor(() => expect(seen.state).toBe("subscribed"), soon);
  return { Listener, seen, texts, subscribed };
}

test("a publication from another node arrives, and the node that holds the socket is named", async () => {
  const channel = room();
  const { Listener, seen, texts, subscribed } = listener(channel);
  page(<Listener />);
  await subscribed();
  await talker(channel).say("hello");
  await waitFor(() => expect(texts()).toEqual(["hello"]), soon);
  expect(seen.publications[0]).toMatchObject({ replayed: false, data: { user: "talker", node: "two" } });
  await waitFor(
    () => expect(seen.connection).toMatchObject({ isConnected: true, node: "one", reconnectCount: 0 }),
    soon,
  );
});

test("what was missed while away is replayed in order, counted, and nothing comes twice", async () => {
  const channel = room();
  const { Listener, seen, texts, subscribed } = listener(channel);
  const other = talker(channel);
  page(<Listener />);
  await subscribed();
  await other.say("before");
  await waitFor(() => expect(texts()).toEqual(["before"]), soon);
  seen.connection?.disconnect();
  await waitFor(() => expect(seen.connection?.state).toBe("disconnected"), soon);
  for (const text of ["a", "b", "c"]) await other.say(text);
  seen.connection?.connect();
  await waitFor(() => expect(seen.recovered).toEqual([3]), soon);
  await other.say("after");
  await waitFor(() => expect(texts()).toEqual(["before", "a", "b", "c", "after"]), soon);
  expect(seen.publications.map((p) => p.replayed)).toEqual([false, true, true, true, false]);
  expect(seen.resyncs).toBe(0);
  expect(seen.connection).toMatchObject({ reconnectCount: 1, previousNode: "one", node: "one" });
});

test("coming back with nothing missed says so", async () => {
  const { Listener, seen, subscribed } = listener(room());
  page(<Listener />);
  await subscribed();
  seen.connection?.reconnect();
  await waitFor(() => expect(seen.recovered).toEqual([0]), soon);
});

test("a history that is gone is announced, and the query is asked again", async () => {
  const channel = room();
  const other = talker(channel);
  let asked = 0;
  let resyncs = 0;
  let connection: UseConnection | undefined;
  let state = "";
  function Lines() {
    connection = useConnection();
    useQuery({ queryKey: ["lines"], queryFn: async () => ++asked, retry: false });
    state = useQueryChannel(channel, { queryKey: ["lines"], jitter: 50, onResync: () => resyncs++ }).state;
    return null;
  }
  const queries = new QueryClient();
  page(
    <QueryClientProvider client={queries}>
      <Lines />
    </QueryClientProvider>,
  );
  await waitFor(() => expect(state).toBe("subscribed"), soon);
  await other.say("kept");
  await waitFor(() => expect(asked).toBeGreaterThanOrEqual(1), soon);
  connection?.disconnect();
  await other.say("missed");
  const before = asked;
  await fleet.flush();
  // The node may follow the channel a moment longer, and could fill the gap from memory; this one is of another epoch.
  await other.say("after the loss");
  connection?.connect();
  await waitFor(() => expect(resyncs).toBe(1), soon);
  await waitFor(() => expect(asked).toBe(before + 1), soon);
});

test("a node that is killed and replaced on its address costs nothing but a reconnect", async () => {
  const channel = room();
  const other = talker(channel);
  const victim = await fleet.node("victim");
  const { Listener, seen, texts, subscribed } = listener(channel);
  page(<Listener />, victim);
  await subscribed();
  await victim.stop("SIGKILL");
  await waitFor(() => expect(seen.connection?.state).toBe("connecting"), soon);
  await other.say("meanwhile");
  const next = await fleet.node("successor", victim.port);
  await waitFor(() => expect(seen.connection?.node).toBe("successor"), soon);
  await waitFor(() => expect(seen.recovered).toEqual([1]), soon);
  await waitFor(() => expect(texts()).toEqual(["meanwhile"]), soon);
  expect(seen.connection).toMatchObject({ previousNode: "victim", reconnectCount: 1 });
  await next.stop("SIGTERM");
});

test("presence is read whole, then follows joins and leaves; strict mode counts once", async () => {
  const channel = room();
  let here: UsePresence | undefined;
  const moves: string[] = [];
  function Here() {
    here = usePresence(channel, {
      onJoin: ({ user }) => moves.push(`+${user}`),
      onLeave: ({ user }) => moves.push(`-${user}`),
    });
    return null;
  }
  const early = talker(channel, "early");
  await early.ready;
  page(<Here />);
  await waitFor(() => expect(here?.users).toEqual(["early", "reader"]), soon);
  await waitFor(() => expect(here).toMatchObject({ isCurrent: true }), soon);
  expect(here?.clients).toHaveLength(2);
  const late = talker(channel, "late");
  await waitFor(() => expect(here?.users).toEqual(["early", "late", "reader"]), soon);
  late.leave();
  await waitFor(() => expect(here?.users).toEqual(["early", "reader"]), soon);
  await waitFor(
    () => expect(moves.filter((move) => move.endsWith("late"))).toEqual(["+late", "-late"]),
    soon,
  );
});

test("components that name one channel share one subscription; the last one to go ends it", async () => {
  const channel = room();
  const first = listener(channel);
  const second = listener(channel);
  const view = page([<first.Listener key="1" />, <second.Listener key="2" />]);
  await first.subscribed();
  await second.subscribed();
  const other = talker(channel);
  await other.say("both");
  await waitFor(() => expect([first.texts(), second.texts()]).toEqual([["both"], ["both"]]), soon);
  const members = async () => Object.values(await other.connection.channel(channel).presence()).length;
  await waitFor(async () => expect(await members()).toBe(2), soon);
  view.rerender(
    <StrictMode>
      <TidelineProvider url={one.url} websocket={WebSocket}>
        <first.Listener key="1" />
      </TidelineProvider>
    </StrictMode>,
  );
  await other.say("one");
  await waitFor(() => expect(first.texts()).toEqual(["both", "one"]), soon);
  expect(second.texts()).toEqual(["both"]);
  view.unmount();
  await waitFor(async () => expect(await members()).toBe(1), soon);
});

test("another user's channel is refused, by code, and not asked for again", async () => {
  let channel: ReturnType<typeof useChannel> | undefined;
  function Nosy() {
    channel = useChannel("todos:#somebody-else");
    return null;
  }
  page(<Nosy />);
  await waitFor(() => expect(channel).toMatchObject({ state: "unsubscribed", error: { code: 103 } }), soon);
});

test("a session that has ended ends the connection instead of retrying", async () => {
  let connection: UseConnection | undefined;
  const closes: [Close, boolean][] = [];
  let asked = 0;
  function Status() {
    connection = useConnection({ onClose: (close, again) => closes.push([close, again]) });
    return null;
  }
  page(<Status />, one, async () => {
    asked++;
    throw new UnauthorizedError("no session");
  });
  await waitFor(() => expect(closes).toHaveLength(1), soon);
  expect(closes[0]).toMatchObject([{ code: 1 }, false]);
  await waitFor(() => expect(connection?.state).toBe("disconnected"), soon);
  expect(asked).toBeLessThanOrEqual(2); // strict mode mounts twice
});

test("an expired token is replaced and the connection goes on", async () => {
  let connection: UseConnection | undefined;
  const lifetimes = [-10, 3600];
  function Status() {
    connection = useConnection();
    return null;
  }
  page(<Status />, one, async () => token("reader", lifetimes.shift() ?? 3600));
  await waitFor(() => expect(connection?.isConnected).toBe(true), soon);
});

test("rpc answers, and rejects with the node's code", async () => {
  let connection: UseConnection | undefined;
  function Status() {
    connection = useConnection();
    return null;
  }
  page(<Status />);
  await waitFor(() => expect(connection?.isConnected).toBe(true), soon);
  const asked = Date.now();
  const { time } = (await connection?.rpc<{ time: number }>("time")) ?? { time: 0 };
  expect(time).toBeGreaterThanOrEqual(asked - 1);
  expect(time).toBeLessThanOrEqual(Date.now() + 1);
  await expect(connection?.rpc("no such method")).rejects.toMatchObject({ code: 104 });
});

test("a null channel subscribes to nothing, and changing the name moves the subscription", async () => {
  const [a, b] = [room(), room()];
  const heard: string[] = [];
  let state = "";
  function Listener({ channel }: { channel: string | null }) {
    state = useChannel<Stamped>(channel, { onPublication: (p) => heard.push(p.data.data.text) }).state;
    return null;
  }
  const tree = (channel: string | null) => (
    <TidelineProvider url={one.url} getToken={async () => token("reader")} websocket={WebSocket}>
      <Listener channel={channel} />
    </TidelineProvider>
  );
  const view = render(tree(null));
  expect(state).toBe("unsubscribed");
  view.rerender(tree(a));
  await waitFor(() => expect(state).toBe("subscribed"), soon);
  view.rerender(tree(b));
  await waitFor(() => expect(state).toBe("subscribed"), soon);
  await talker(a, "a").say("to a");
  await talker(b, "b").say("to b");
  await waitFor(() => expect(heard).toEqual(["to b"]), soon);
});
