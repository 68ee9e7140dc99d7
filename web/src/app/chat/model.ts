// The messages of one room: a page of history at the old end, publications at the new one, and what is still being sent.

/** A publication of a `chat:` channel, as the server stamps it. */
export interface Stamped {
  id: string;
  user: string;
  /** Milliseconds since 1970, or RFC 3339. */
  time: number | string;
  node: string;
  data: { text: string };
}

export interface Line {
  id: string;
  user: string;
  text: string;
  at: number;
  node?: string;
  /** Place in the channel's order; absent while sending. */
  offset?: number;
  status: "sent" | "sending" | "failed";
  problem?: string;
}

export interface Place {
  epoch: string;
  offset: number;
}

export class RoomModel {
  #sent: Line[] = [];
  #epoch: string | undefined;
  readonly #ids = new Set<string>();
  #outbox: readonly Line[] = [];
  #view: readonly Line[] | undefined;
  readonly #watchers = new Set<() => void>();

  watch = (changed: () => void): (() => void) => {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  };

  /** In the channel's order, then what is being sent; the same array until something changes. */
  view = (): readonly Line[] => {
    this.#view ??= [...this.#sent, ...this.#outbox];
    return this.#view;
  };

  /** Takes publications in any order. One that is known already, by id, is not taken twice. */
  learn(publications: readonly { offset?: number; data: unknown }[]): number {
    let news = 0;
    for (const { offset, data } of publications) {
      const line = lineOf(data, offset);
      if (!line || this.#ids.has(line.id)) continue;
      this.#ids.add(line.id);
      this.#sent.push(line);
      news++;
    }
    const done = this.#outbox.filter((line) => this.#ids.has(line.id));
    if (done.length > 0) this.#outbox = this.#outbox.filter((line) => !this.#ids.has(line.id));
    if (news > 0) this.#sent.sort((a, b) => (a.offset ?? 0) - (b.offset ?? 0));
    if (news > 0 || done.length > 0) this.#changed();
    return news;
  }

  /** Where history continues backwards, if anything is known. */
  place(): Place | undefined {
    const offset = this.#sent[0]?.offset;
    return offset === undefined || this.#epoch === undefined ? undefined : { offset, epoch: this.#epoch };
  }

  /** Takes the newest page of history. What is known is forgotten if it belongs to another epoch, or if the page doesn't reach it. */
  newest(page: { publications: readonly { offset?: number; data: unknown }[]; epoch: string }): void {
    const oldest = Math.min(...page.publications.map((p) => p.offset ?? 0));
    const last = this.#sent.at(-1)?.offset ?? 0;
    const apart = this.#sent.length > 0 && page.publications.length > 0 && oldest > last + 1;
    if ((this.#epoch !== undefined && this.#epoch !== page.epoch) || apart) this.reset();
    this.#epoch = page.epoch;
    this.learn(page.publications);
  }

  /** Forgets what the server sent: after a gap that could not be filled, or another epoch, older offsets mean nothing. */
  reset(): void {
    this.#sent = [];
    this.#ids.clear();
    this.#epoch = undefined;
    this.#changed();
  }

  sending(line: { id: string; user: string; text: string; at: number }): void {
    if (this.#ids.has(line.id)) return;
    const rest = this.#outbox.filter(({ id }) => id !== line.id);
    this.#outbox = [...rest, { ...line, status: "sending" }];
    this.#changed();
  }

  failed(id: string, problem: string): void {
    this.#outbox = this.#outbox.map((line) =>
      line.id === id ? { ...line, status: "failed", problem } : line,
    );
    this.#changed();
  }

  discard(id: string): void {
    this.#outbox = this.#outbox.filter((line) => line.id !== id);
    this.#changed();
  }

  #changed(): void {
    this.#view = undefined;
    for (const changed of this.#watchers) changed();
  }
}

function lineOf(data: unknown, offset: number | undefined): Line | undefined {
  if (typeof data !== "object" || data === null) return undefined;
  const { id, user, time, node, data: inner } = data as Partial<Stamped>;
  if (typeof id !== "string" || typeof inner?.text !== "string") return undefined;
  const at = typeof time === "number" ? time : Date.parse(String(time));
  return {
    id,
    user: String(user ?? ""),
    text: inner.text,
    at: Number.isNaN(at) ? 0 : at,
    status: "sent",
    ...(typeof node === "string" ? { node } : {}),
    ...(offset !== undefined ? { offset } : {}),
  };
}
