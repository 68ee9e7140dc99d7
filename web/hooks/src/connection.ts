// The one socket of a page: a Centrifuge client, what it is doing, and the subscriptions that hooks share.
// Handlers are called synchronously from the socket's events; they must not throw. Nothing here belongs to React.
import { Centrifuge, type ClientInfo, UnauthorizedError } from "centrifuge";
import { Channel } from "./channel.ts";

export { UnauthorizedError };

/** What the socket is doing. `disconnected` is final until `connect` is called: the server said not to come back, or we left. */
export type ConnectionState = "connecting" | "connected" | "disconnected";

/** Why the socket was closed last. */
export interface Close {
  /** The protocol's code. 3000-3499 and 4000-4499 reconnect by themselves; below 3000 it was decided on this side. */
  code: number;
  reason: string;
  /** Milliseconds since 1970. */
  at: number;
}

/** An immutable picture of the connection; a new object whenever something changed. */
export interface ConnectionSnapshot {
  state: ConnectionState;
  /** The id of the node that holds the socket, or that held it last. */
  node?: string;
  /** The node before the last reconnect. Equal to `node` when the load balancer brought us back. */
  previousNode?: string;
  /** The server's id of this connection. */
  client?: string;
  /** How often the socket came back after it had been open once. */
  reconnectCount: number;
  lastClose?: Close;
  /** When the present socket was opened, milliseconds since 1970. */
  connectedAt?: number;
  /** When a deliberate `reconnect` will open the socket again, milliseconds since 1970. */
  resumesAt?: number;
}

/** Something that arrived: a publication on a channel, or (without `channel`) a message to this connection alone. */
export interface Message {
  channel?: string;
  data: unknown;
  offset?: number;
  info?: ClientInfo;
  tags?: Record<string, string>;
  /** True for a publication that was missed while away and replayed on return. */
  replayed: boolean;
}

/** How a channel came back after an interruption. */
export interface Recovery {
  channel: string;
  /** True: everything missed was replayed, `count` publications. False: the gap could not be filled; fetch the state again. */
  recovered: boolean;
  count: number;
}

export interface ConnectionEvents {
  /** The socket is open and authenticated. */
  onOpen?: (snapshot: ConnectionSnapshot) => void;
  onMessage?: (message: Message) => void;
  /** The socket was closed. `willReconnect` says whether it comes back by itself. */
  onClose?: (close: Close, willReconnect: boolean) => void;
  /** A transport, token or connect error. The client goes on retrying unless `onClose` says otherwise. */
  onError?: (error: { code: number; message: string; type: string }) => void;
  onRecovery?: (recovery: Recovery) => void;
}

export interface ConnectionOptions {
  /** `wss://host/connection/websocket`, or a path of this origin. */
  url: string;
  /**
   * Answers a token for this user. Called before the first connect and whenever the server says that the token has expired.
   * Throw {@link UnauthorizedError} when there is no session any more: the connection then ends instead of retrying.
   */
  getToken?: () => Promise<string>;
  /** Reconnects wait a random time that grows from `minReconnectDelay` (default 300) to `maxReconnectDelay` (20,000), milliseconds. */
  minReconnectDelay?: number;
  maxReconnectDelay?: number;
  /** Wait for the answer to a command, milliseconds. Default 5,000. */
  timeout?: number;
  /** Name and version of your application, for the server's metrics. */
  name?: string;
  version?: string;
  /** A WebSocket constructor, where the runtime has none (Node.js before 22). */
  websocket?: unknown;
}

const INITIAL: ConnectionSnapshot = { state: "disconnected", reconnectCount: 0 };

export class Connection {
  /** The client underneath, for what this class does not wrap. */
  readonly client: Centrifuge;

  #snapshot = INITIAL;
  #opened = false;
  #resume: ReturnType<typeof setTimeout> | undefined;
  readonly #watchers = new Set<() => void>();
  readonly #events = new Set<ConnectionEvents>();
  readonly #channels = new Map<string, Channel>();

  constructor(options: ConnectionOptions) {
    this.client = new Centrifuge(absolute(options.url), {
      getToken: options.getToken ?? null,
      minReconnectDelay: options.minReconnectDelay ?? 300,
      maxReconnectDelay: options.maxReconnectDelay ?? 20_000,
      timeout: options.timeout ?? 5_000,
      name: options.name ?? "tideline-react",
      version: options.version ?? "",
      websocket: options.websocket ?? null,
    });
    this.#listen();
  }

  /** Opens the socket. Returns at once; does nothing when it is open or opening. */
  connect = (): void => {
    this.#cancelResume();
    this.client.connect();
  };

  /** Closes the socket and stays away. Subscriptions keep their positions, so a later `connect` recovers what was missed. */
  disconnect = (): void => {
    this.#cancelResume();
    this.client.disconnect();
  };

  /** Closes the socket and opens a new one after `delay` milliseconds. */
  reconnect = (delay = 0): void => {
    this.disconnect();
    this.#set({ resumesAt: Date.now() + delay });
    this.#resume = setTimeout(this.connect, delay);
  };

  /** Calls a named method of the node. Rejects with `{code, message}` when the node refuses, or after the command timeout. */
  rpc = async <T = unknown>(method: string, data: unknown = {}): Promise<T> => {
    const result = await this.client.rpc(method, data);
    return result.data as T;
  };

  snapshot = (): ConnectionSnapshot => this.#snapshot;

  /** Calls `changed` after every change of the snapshot, until the returned function is called. */
  watch = (changed: () => void): (() => void) => {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  };

  /** Reports events until the returned function is called. */
  listen = (events: ConnectionEvents): (() => void) => {
    this.#events.add(events);
    return () => this.#events.delete(events);
  };

  /** The shared state of a channel. It subscribes when the first holder comes, and unsubscribes after the last has gone. */
  channel(name: string): Channel {
    let channel = this.#channels.get(name);
    if (!channel) {
      channel = new Channel(name, this.client, {
        message: (message) => this.#emit((e) => e.onMessage?.(message)),
        recovery: (recovery) => this.#emit((e) => e.onRecovery?.(recovery)),
      });
      this.#channels.set(name, channel);
    }
    return channel;
  }

  #listen(): void {
    this.client.on("connecting", ({ code, reason }) => {
      const wasOpen = this.#snapshot.state === "connected";
      const close = { code, reason, at: Date.now() };
      this.#set({ state: "connecting", ...(wasOpen ? { lastClose: close } : {}) });
      if (wasOpen) this.#emit((e) => e.onClose?.(close, true));
    });
    this.client.on("connected", ({ client, data }) => {
      const node = nodeOf(data);
      const last = this.#snapshot;
      this.#set({
        state: "connected",
        client,
        connectedAt: Date.now(),
        reconnectCount: last.reconnectCount + (this.#opened ? 1 : 0),
        ...(this.#opened && last.node !== undefined ? { previousNode: last.node } : {}),
        ...(node !== undefined ? { node } : {}),
      });
      this.#opened = true;
      this.#emit((e) => e.onOpen?.(this.#snapshot));
    });
    this.client.on("disconnected", ({ code, reason }) => {
      const close = { code, reason, at: Date.now() };
      // Leaving before it was ever open is no event: strict mode does that to every effect.
      const quiet = code === 0 && this.#snapshot.state === "connecting" && !this.#opened;
      this.#set({ state: "disconnected", ...(quiet ? {} : { lastClose: close }) });
      if (!quiet) this.#emit((e) => e.onClose?.(close, false));
    });
    this.client.on("error", ({ type, error }) => {
      this.#emit((e) => e.onError?.({ type, code: error.code, message: error.message }));
    });
    this.client.on("message", ({ data }) => {
      this.#emit((e) => e.onMessage?.({ data, replayed: false }));
    });
  }

  #cancelResume(): void {
    if (this.#resume === undefined) return;
    clearTimeout(this.#resume);
    this.#resume = undefined;
    const { resumesAt: _, ...rest } = this.#snapshot;
    this.#snapshot = rest;
  }

  #set(change: Partial<ConnectionSnapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...change };
    for (const changed of this.#watchers) changed();
  }

  #emit(tell: (events: ConnectionEvents) => void): void {
    for (const events of this.#events) tell(events);
  }
}

function nodeOf(data: unknown): string | undefined {
  if (typeof data !== "object" || data === null || !("node" in data)) return undefined;
  return typeof data.node === "string" ? data.node : undefined;
}

function absolute(url: string): string {
  if (!url.startsWith("/") || typeof location === "undefined") return url;
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${url}`;
}
