// One channel's subscription, shared by every hook that names it.
import type {
  Centrifuge,
  ClientInfo,
  HistoryOptions,
  HistoryResult,
  PublicationContext,
  Subscription,
  SubscriptionState,
} from "centrifuge";
import type { Message, Recovery } from "./connection.ts";

/** A publication as a channel's subscriber sees it. */
export interface Publication<T = unknown> {
  data: T;
  /** The place in the channel's order; absent on channels without history. */
  offset?: number;
  info?: ClientInfo;
  tags?: Record<string, string>;
  /** True for a publication that was missed while away and replayed on return. */
  replayed: boolean;
}

export interface ChannelEvents<T = unknown> {
  onPublication?: (publication: Publication<T>) => void;
  /** Subscribed, for the first time or again. `fresh` is true when no position was carried over: fetch the state now. */
  onSubscribed?: (context: { fresh: boolean; first: boolean }) => void;
  /** Everything missed while away has been replayed to `onPublication`: `count` publications. */
  onRecovered?: (count: number) => void;
  /** What was missed could not be replayed: fetch the state again. */
  onResync?: () => void;
  onJoin?: (info: ClientInfo) => void;
  onLeave?: (info: ClientInfo) => void;
  /** A refused or failed subscribe. Temporary errors are retried by the client; after others `state` is `unsubscribed`. */
  onError?: (error: { code: number; message: string }) => void;
}

export interface ChannelSnapshot {
  state: "unsubscribed" | "subscribing" | "subscribed";
  /** The last refusal, until the next success. */
  error?: { code: number; message: string };
  /** How the last interruption ended. */
  lastRecovery?: Recovery & { at: number };
}

interface Upcalls {
  message: (message: Message) => void;
  recovery: (recovery: Recovery) => void;
}

const IDLE: ChannelSnapshot = { state: "unsubscribed" };

export class Channel {
  readonly name: string;
  readonly #client: Centrifuge;
  readonly #up: Upcalls;
  readonly #listeners = new Set<ChannelEvents>();
  readonly #watchers = new Set<() => void>();
  #snapshot: ChannelSnapshot = IDLE;
  #holders = 0;
  #sub: Subscription | undefined;
  #subscribedOnce = false;
  /** Counts replayed publications between `subscribed` and the end of that turn; undefined outside of it. */
  #replay: number | undefined;

  constructor(name: string, client: Centrifuge, up: Upcalls) {
    this.name = name;
    this.#client = client;
    this.#up = up;
  }

  snapshot = (): ChannelSnapshot => this.#snapshot;

  watch = (changed: () => void): (() => void) => {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  };

  /** Subscribes if nobody else has, and reports events until the returned function is called. */
  hold(events: ChannelEvents): () => void {
    this.#listeners.add(events);
    this.#holders++;
    if (!this.#sub) this.#subscribe();
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#listeners.delete(events);
      this.#holders--;
      // A component that remounts (navigation, strict mode) takes the subscription over within the same turn.
      if (this.#holders === 0) setTimeout(() => this.#leave(), 0);
    };
  }

  /** A part of the channel's history. Rejects with `{code, message}` when refused. */
  history(options: HistoryOptions): Promise<HistoryResult> {
    return this.#required().history(options);
  }

  /** Who is subscribed now, by connection. */
  async presence(): Promise<Record<string, ClientInfo>> {
    return (await this.#required().presence()).clients;
  }

  /** Publishes, where the namespace lets clients. A lost answer leaves it unknown whether it was published: see rpc `publish`. */
  async publish(data: unknown): Promise<void> {
    await this.#required().publish(data);
  }

  #required(): Subscription {
    if (!this.#sub) throw new Error(`not subscribed to ${this.name}`);
    return this.#sub;
  }

  #subscribe(): void {
    const sub =
      this.#client.getSubscription(this.name) ??
      this.#client.newSubscription(this.name, {
        recoverable: true,
        positioned: true,
        joinLeave: true,
        minResubscribeDelay: 500,
        maxResubscribeDelay: 20_000,
      });
    this.#sub = sub;
    sub.on("state", ({ newState }) => this.#set({ state: stateName(newState) }));
    sub.on("subscribed", ({ wasRecovering, recovered }) => {
      const { error: _, ...rest } = this.#snapshot;
      this.#snapshot = rest;
      const first = !this.#subscribedOnce;
      this.#subscribedOnce = true;
      if (wasRecovering) this.#recover(recovered);
      this.#tell((l) => l.onSubscribed?.({ fresh: first || !wasRecovering, first }));
    });
    sub.on("publication", (context) => this.#publication(context));
    sub.on("join", ({ info }) => this.#tell((l) => l.onJoin?.(info)));
    sub.on("leave", ({ info }) => this.#tell((l) => l.onLeave?.(info)));
    sub.on("error", ({ error }) => this.#fail(error));
    sub.on("unsubscribed", ({ code, reason }) => {
      if (code > 0) this.#fail({ code, message: reason });
    });
    sub.subscribe();
  }

  #recover(recovered: boolean): void {
    // The client delivers what it recovered in the same turn as `subscribed`; a microtask runs after the last one.
    this.#replay = recovered ? 0 : undefined;
    queueMicrotask(() => {
      const recovery = { channel: this.name, recovered, count: this.#replay ?? 0 };
      this.#replay = undefined;
      this.#set({ lastRecovery: { ...recovery, at: Date.now() } });
      this.#up.recovery(recovery);
      this.#tell((l) => (recovered ? l.onRecovered?.(recovery.count) : l.onResync?.()));
    });
  }

  #publication({ data, offset, info, tags }: PublicationContext): void {
    const replayed = this.#replay !== undefined;
    if (this.#replay !== undefined) this.#replay++;
    const publication: Publication = {
      data,
      replayed,
      ...(offset !== undefined ? { offset } : {}),
      ...(info ? { info } : {}),
      ...(tags ? { tags } : {}),
    };
    this.#up.message({ channel: this.name, ...publication });
    this.#tell((l) => l.onPublication?.(publication));
  }

  #fail({ code, message }: { code: number; message: string }): void {
    this.#set({ error: { code, message } });
    this.#tell((l) => l.onError?.({ code, message }));
  }

  #leave(): void {
    if (this.#holders > 0 || !this.#sub) return;
    const sub = this.#sub;
    this.#sub = undefined;
    this.#subscribedOnce = false;
    sub.removeAllListeners();
    sub.unsubscribe();
    this.#client.removeSubscription(sub);
    this.#set(IDLE);
  }

  #set(change: Partial<ChannelSnapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...change };
    for (const changed of this.#watchers) changed();
  }

  #tell(tell: (events: ChannelEvents) => void): void {
    for (const listener of this.#listeners) tell(listener);
  }
}

function stateName(state: SubscriptionState): ChannelSnapshot["state"] {
  return state as ChannelSnapshot["state"];
}
