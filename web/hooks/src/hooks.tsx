// The hooks: thin bindings of Connection and Channel to React. Every hook may be used by any number of components.
import type { ClientInfo, HistoryOptions, HistoryResult } from "centrifuge";
import {
  createContext,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import type { ChannelEvents, ChannelSnapshot } from "./channel.ts";
import {
  Connection,
  type ConnectionEvents,
  type ConnectionOptions,
  type ConnectionSnapshot,
} from "./connection.ts";
import { useLatest } from "./latest.ts";
import { type Clients, Members } from "./members.ts";

const Context = createContext<Connection | null>(null);

export interface TidelineProviderProps extends ConnectionOptions {
  /** False keeps the socket closed until `connect` is called. Default true. */
  autoConnect?: boolean;
  children?: ReactNode;
}

/**
 * Holds one connection for the components below it: opened when it mounts, closed when it unmounts. `url` and the limits are
 * read once; give the provider another `key` to change them. `getToken` may change at any time.
 */
export function TidelineProvider({ children, autoConnect = true, ...options }: TidelineProviderProps) {
  const getToken = useLatest(options.getToken);
  const [connection] = useState(
    () =>
      new Connection(
        options.getToken
          ? { ...options, getToken: () => getToken.current?.() ?? Promise.resolve("") }
          : options,
      ),
  );
  useEffect(() => {
    if (autoConnect) connection.connect();
    return connection.disconnect;
  }, [connection, autoConnect]);
  return <Context.Provider value={connection}>{children}</Context.Provider>;
}

/** The connection itself. Throws outside a provider. */
export function useTideline(): Connection {
  const connection = useContext(Context);
  if (!connection) throw new Error("useTideline: no TidelineProvider above this component");
  return connection;
}

export interface UseConnection extends ConnectionSnapshot {
  isConnected: boolean;
  connect: () => void;
  disconnect: () => void;
  /** Closes the socket and opens a new one after `delay` milliseconds (0). */
  reconnect: (delay?: number) => void;
  /** Calls a named method of the node. */
  rpc: <T = unknown>(method: string, data?: unknown) => Promise<T>;
}

/** The state of the socket, and what can be done with it. */
export function useConnection(events: ConnectionEvents = {}): UseConnection {
  const connection = useTideline();
  const snapshot = useSyncExternalStore(connection.watch, connection.snapshot, connection.snapshot);
  const latest = useLatest(events);
  useEffect(
    () =>
      connection.listen({
        onOpen: (s) => latest.current.onOpen?.(s),
        onMessage: (m) => latest.current.onMessage?.(m),
        onClose: (c, again) => latest.current.onClose?.(c, again),
        onError: (e) => latest.current.onError?.(e),
        onRecovery: (r) => latest.current.onRecovery?.(r),
      }),
    [connection, latest],
  );
  return useMemo(
    () => ({
      ...snapshot,
      isConnected: snapshot.state === "connected",
      connect: connection.connect,
      disconnect: connection.disconnect,
      reconnect: connection.reconnect,
      rpc: connection.rpc,
    }),
    [snapshot, connection],
  );
}

export interface UseChannel extends ChannelSnapshot {
  isSubscribed: boolean;
  history: (options: HistoryOptions) => Promise<HistoryResult>;
  publish: (data: unknown) => Promise<void>;
}

const UNSUBSCRIBED: ChannelSnapshot = { state: "unsubscribed" };
const never = () => () => {};

/**
 * Subscribes to `channel` while the component is mounted; `null` subscribes to nothing. Components that name the same channel
 * share one subscription; one that comes later does not hear what was published before it came.
 */
export function useChannel<T = unknown>(channel: string | null, events: ChannelEvents<T> = {}): UseChannel {
  const connection = useTideline();
  const latest = useLatest(events);
  const shared = useMemo(
    () => (channel === null ? null : connection.channel(channel)),
    [connection, channel],
  );

  useEffect(() => {
    if (channel === null) return;
    return connection.channel(channel).hold({
      onPublication: (p) => latest.current.onPublication?.(p as never),
      onSubscribed: (c) => latest.current.onSubscribed?.(c),
      onRecovered: (n) => latest.current.onRecovered?.(n),
      onResync: () => latest.current.onResync?.(),
      onJoin: (i) => latest.current.onJoin?.(i),
      onLeave: (i) => latest.current.onLeave?.(i),
      onError: (e) => latest.current.onError?.(e),
    });
  }, [connection, channel, latest]);

  const idle = useCallback(() => UNSUBSCRIBED, []);
  const snapshot = useSyncExternalStore(shared?.watch ?? never, shared?.snapshot ?? idle, idle);
  return useMemo(() => {
    const required = () => {
      if (channel === null) throw new Error("no channel");
      return connection.channel(channel);
    };
    return {
      ...snapshot,
      isSubscribed: snapshot.state === "subscribed",
      history: async (options) => required().history(options),
      publish: async (data) => required().publish(data),
    };
  }, [snapshot, connection, channel]);
}

export interface PresenceEvents {
  /** A connection came or went while we were watching; not called for those who were here before. */
  onJoin?: (info: ClientInfo) => void;
  onLeave?: (info: ClientInfo) => void;
}

export interface UsePresence {
  /** One entry for each connection. */
  clients: readonly ClientInfo[];
  /** The users among them, each once, in alphabetical order. */
  users: readonly string[];
  /** False until the first answer, and while it may be out of date. */
  isCurrent: boolean;
}

/** Who is subscribed to `channel`. Read whole after every (re)subscribe, kept up by joins and leaves in between. */
export function usePresence(channel: string | null, events: PresenceEvents = {}): UsePresence {
  const connection = useTideline();
  const [members] = useState(() => new Members());
  const [state, setState] = useState<{ clients: Clients; isCurrent: boolean }>(NOBODY);
  const retry = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);

  const read = async (attempt = 0): Promise<void> => {
    if (channel === null) return;
    clearTimeout(retry.current);
    const turn = members.reading();
    try {
      if (!members.read(turn, await connection.channel(channel).presence())) return;
      setState({ clients: members.clients, isCurrent: true });
    } catch {
      // Refused or timed out: tried again, jittered; after the last time the next subscribe reads.
      if (!members.isCurrent(turn) || attempt + 1 >= READ_TRIES) return;
      retry.current = setTimeout(() => void read(attempt + 1), (attempt + 1) * 1000 * (0.5 + Math.random()));
    }
  };
  const move = (info: ClientInfo, joined: boolean) => {
    members.move(info, joined);
    setState((last) => ({ ...last, clients: members.clients }));
  };
  const { isSubscribed } = useChannel(channel, {
    onSubscribed: () => void read(),
    onJoin: (info) => {
      move(info, true);
      events.onJoin?.(info);
    },
    onLeave: (info) => {
      move(info, false);
      events.onLeave?.(info);
    },
  });
  const latest = useLatest(read);
  useEffect(() => {
    // A channel that another component has subscribed already says nothing more about it.
    if (channel !== null && connection.channel(channel).snapshot().state === "subscribed")
      void latest.current();
    return () => {
      clearTimeout(retry.current);
      members.clear();
      setState(NOBODY);
    };
  }, [channel, connection, members, latest]);

  return useMemo(() => {
    const clients = [...state.clients.values()];
    const users = [...new Set(clients.map((c) => c.user))].sort();
    return { clients, users, isCurrent: state.isCurrent && isSubscribed };
  }, [state, isSubscribed]);
}

/** How often a presence list is asked for after one subscribe. */
const READ_TRIES = 4;
const NOBODY: { clients: Clients; isCurrent: boolean } = { clients: new Map(), isCurrent: false };
