// What the page measures of its own connection: round trips, clock difference, latency of publications, and a short log.

import { type Connection, type Message, type Recovery, useTideline } from "@tideline/react";
import { useEffect, useState, useSyncExternalStore } from "react";

export interface Sample {
  /** Milliseconds since 1970. */
  at: number;
  ms: number;
}

export type Note =
  | { kind: "open"; node: string; previous?: string; again: boolean }
  | { kind: "close"; code: number; reason: string; deliberate: boolean }
  | { kind: "replayed"; count: number; channels: number }
  | { kind: "resync"; channels: number };

export interface Telemetry {
  rtt?: number;
  received: number;
  replayed: number;
  /** Publish to receive, newest last. */
  latency: readonly Sample[];
  trips: readonly Sample[];
  log: readonly (Note & { id: number; at: number })[];
}

const SAMPLES = 240;
const LOG = 40;
/** The window in which the channels of one reconnect report how they came back. */
const GATHER = 400;

/** How often the round trip is measured, milliseconds. */
const EVERY = 5_000;

export class Meter {
  #state: Telemetry = { received: 0, replayed: 0, latency: [], trips: [], log: [] };
  readonly #watchers = new Set<() => void>();
  /** Server clock minus ours, from the round trip that was shortest lately. */
  #offset: number | undefined;
  #best = Number.POSITIVE_INFINITY;
  #ids = 0;
  #gathered: Recovery[] = [];
  #gather: ReturnType<typeof setTimeout> | undefined;
  #deliberate = false;

  snapshot = (): Telemetry => this.#state;
  watch = (changed: () => void): (() => void) => {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  };

  /** The next close was asked for by the user. */
  expectClose(): void {
    this.#deliberate = true;
  }

  /** Measures until the returned function is called. */
  follow(connection: Connection): () => void {
    const stop = connection.listen({
      onOpen: ({ node, previousNode, reconnectCount }) => {
        this.#best = Number.POSITIVE_INFINITY;
        this.#note({
          kind: "open",
          node: node ?? "unknown",
          again: reconnectCount > 0,
          ...(reconnectCount > 0 && previousNode !== undefined ? { previous: previousNode } : {}),
        });
        void this.#measure(connection);
      },
      onClose: ({ code, reason }) => {
        this.#note({ kind: "close", code, reason, deliberate: this.#deliberate });
        this.#deliberate = false;
      },
      onMessage: (message) => this.#received(message),
      onRecovery: (recovery) => this.#recovered(recovery),
    });
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void this.#measure(connection);
    }, EVERY);
    return () => {
      stop();
      clearInterval(timer);
      clearTimeout(this.#gather);
    };
  }

  async #measure(connection: Connection): Promise<void> {
    if (connection.snapshot().state !== "connected") return;
    const sent = performance.now();
    try {
      const answer = await connection.rpc("time");
      const ms = performance.now() - sent;
      const server = timeOf(answer);
      // The shortest trip says most about the difference of the clocks; it is forgotten slowly.
      this.#best = Math.min(this.#best * 1.05, Number.MAX_VALUE);
      if (server !== undefined && ms <= this.#best) {
        this.#best = ms;
        this.#offset = server - (Date.now() - ms / 2);
      }
      this.#set({ rtt: ms, trips: push(this.#state.trips, { at: Date.now(), ms }) });
    } catch {
      // No answer in time; the connection has its own timers for that.
    }
  }

  #received(message: Message): void {
    const change: Partial<Telemetry> = { received: this.#state.received + 1 };
    if (message.replayed) change.replayed = this.#state.replayed + 1;
    const published = publishedAt(message.data);
    if (!message.replayed && published !== undefined && this.#offset !== undefined) {
      const at = Date.now();
      const ms = Math.max(0, at + this.#offset - published);
      if (ms < 60_000) change.latency = push(this.#state.latency, { at, ms });
    }
    this.#set(change);
  }

  #recovered(recovery: Recovery): void {
    this.#gathered.push(recovery);
    clearTimeout(this.#gather);
    this.#gather = setTimeout(() => {
      const lost = this.#gathered.filter((r) => !r.recovered).length;
      const count = this.#gathered.reduce((sum, r) => sum + r.count, 0);
      const channels = this.#gathered.length - lost;
      this.#gathered = [];
      if (channels > 0) this.#note({ kind: "replayed", count, channels });
      if (lost > 0) this.#note({ kind: "resync", channels: lost });
    }, GATHER);
  }

  #note(note: Note): void {
    const entry = { ...note, id: ++this.#ids, at: Date.now() };
    this.#set({ log: [entry, ...this.#state.log].slice(0, LOG) });
  }

  #set(change: Partial<Telemetry>): void {
    this.#state = { ...this.#state, ...change };
    for (const changed of this.#watchers) changed();
  }
}

function push(samples: readonly Sample[], sample: Sample): readonly Sample[] {
  return [...samples.slice(-(SAMPLES - 1)), sample];
}

/** The rpc `time` answers `{time}` in milliseconds since 1970 or RFC 3339. */
function timeOf(answer: unknown): number | undefined {
  const value = typeof answer === "object" && answer !== null && "time" in answer ? answer.time : answer;
  const at = typeof value === "string" ? Date.parse(value) : Number(value);
  return Number.isFinite(at) && at > 0 ? at : undefined;
}

/** When a publication was made, by the time that its maker put into it. */
function publishedAt(data: unknown): number | undefined {
  if (typeof data !== "object" || data === null) return undefined;
  const { time, todo, type } = data as { time?: unknown; todo?: { updatedAt?: unknown }; type?: unknown };
  const value = time ?? (type === "todo.deleted" ? undefined : todo?.updatedAt);
  const at = typeof value === "number" ? value : Date.parse(String(value));
  return Number.isFinite(at) ? at : undefined;
}

export function useMeter(): Meter {
  const connection = useTideline();
  const [meter] = useState(() => new Meter());
  useEffect(() => meter.follow(connection), [meter, connection]);
  return meter;
}

export function useTelemetry(meter: Meter): Telemetry {
  return useSyncExternalStore(meter.watch, meter.snapshot);
}
