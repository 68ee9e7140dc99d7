// The lines of one log: what was published, in the channel's order, each line once, at most so many. Knows nothing of React or the socket.

import { Ansi, type Span } from "./ansi";

/** The most lines that are kept; older ones make room. */
export const LINES_MAX = 10_000;
/** The most text that is kept, characters: lines have up to 8 KiB each. */
export const TEXT_MAX = 8 * 1024 * 1024;
/** The most lines that wait while the log is paused, or while somebody reads further up and the log is full. Then the oldest of them go. */
export const WAITING_MAX = 5_000;
/** Lines that cost nothing to keep would cost something to draw: each counts at least this many characters. */
const LINE_COST = 100;

/** What a line of a publication may have; node/stream has the other end. */
interface Wire {
  t?: number;
  s?: string;
  m?: string;
  cut?: boolean;
  data?: unknown;
  note?: string;
  gap?: string;
  dropped?: number;
}

/** What Docker says has happened. */
export interface DockerEvent {
  type: string;
  action: string;
  id?: string;
  name?: string;
  image?: string;
  exit?: string;
  signal?: string;
}

export interface Line {
  /** Ever growing; the line's key. */
  seq: number;
  /** `note`: the source about itself. `gap`: lines may be missing. `dropped`: a known number is. `event`: of Docker. */
  kind: "line" | "note" | "gap" | "dropped" | "event";
  /** Milliseconds since 1970, by the source's clock. */
  at?: number;
  /** stdout, stderr, or CloudWatch's log stream. */
  source?: string;
  /** Without escape sequences. */
  text: string;
  spans?: readonly Span[];
  /** The line was longer than what is passed on. */
  cut?: boolean;
  event?: DockerEvent;
}

export interface LogView {
  lines: readonly Line[];
  paused: boolean;
  /** Lines that wait until the log goes on, and how many of those had to go. */
  waiting: number;
  waitingDropped: number;
  /** Lines that were here and had to make room. */
  gone: number;
}

interface Publication {
  offset?: number;
  data: unknown;
}

/** How the log goes on: at its end; where it is, without taking away what is being read; or not at all. */
type Mode = "following" | "holding" | "paused";

export class LogModel {
  #mode: Mode = "following";
  #lines: Line[] = [];
  #size = 0;
  #waiting: Line[] = [];
  #waitingDropped = 0;
  #gone = 0;
  #seq = 0;
  readonly #ansi = new Map<string, Ansi>();
  /** The last offset that was taken; publications up to it are known. */
  #top = 0;
  #epoch: string | undefined;
  /** Live publications that came while history is being read. */
  #parked: Publication[] | undefined;
  #view: LogView | undefined;
  readonly #watchers = new Set<() => void>();

  watch = (changed: () => void): (() => void) => {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  };

  /** The same object until something changes. */
  view = (): LogView => {
    this.#view ??= {
      lines: [...this.#lines],
      paused: this.#mode === "paused",
      waiting: this.#waiting.length,
      waitingDropped: this.#waitingDropped,
      gone: this.#gone,
    };
    return this.#view;
  };

  /** History is being read: what is published from here on waits for it. */
  reading(): void {
    this.#parked ??= [];
  }

  /**
   * Takes a page of history, in any order, and what has waited for it. `null`: it can't be had. What lies between the last line and the page is
   * announced.
   */
  history(page: { publications: readonly Publication[]; epoch: string } | null): void {
    const parked = this.#parked ?? [];
    this.#parked = undefined;
    const known = this.#top > 0;
    if (page) {
      const sorted = [...page.publications].sort((a, b) => (a.offset ?? 0) - (b.offset ?? 0));
      const another = this.#epoch !== undefined && this.#epoch !== page.epoch;
      if (another) this.#top = 0;
      const oldest = sorted[0]?.offset ?? 0;
      if (known && (another || oldest > this.#top + 1))
        this.#announce("lines that came while this page was away are not kept any more");
      this.#epoch = page.epoch;
      for (const publication of sorted) this.#take(publication);
    } else if (known) {
      this.#announce("lines that came while this page was away could not be read");
    }
    for (const publication of parked) this.#take(publication);
    this.#changed();
  }

  publication(publication: Publication): void {
    if (this.#parked) this.#parked.push(publication);
    else {
      this.#take(publication);
      this.#changed();
    }
  }

  pause(): void {
    this.#mode = "paused";
    this.#changed();
  }

  /** Goes on at the end: what has waited is added, older lines make room. */
  follow(): void {
    if (this.#mode === "following" && this.#waiting.length === 0) return;
    this.#mode = "following";
    const waiting = this.#waiting;
    this.#waiting = [];
    if (this.#waitingDropped > 0) {
      const count = this.#waitingDropped.toLocaleString();
      this.#add(
        this.#make(
          "dropped",
          `${count} lines that came meanwhile had to go: at most ${WAITING_MAX.toLocaleString()} wait`,
        ),
      );
      this.#waitingDropped = 0;
    }
    for (const line of waiting) this.#add(line);
    this.#changed();
  }

  /** Somebody reads further up: what is there stays there. */
  hold(): void {
    if (this.#mode === "following") this.#mode = "holding";
  }

  /** Forgets what is there; what comes is shown. */
  clear(): void {
    this.#gone += this.#lines.length;
    this.#lines = [];
    this.#size = 0;
    this.#changed();
  }

  #take({ offset, data }: Publication): void {
    if (offset !== undefined) {
      if (offset <= this.#top) return;
      this.#top = offset;
    }
    for (const wire of linesOf(data)) this.#accept(this.#read(wire));
  }

  #read({ t, s, m, cut, data, note, gap, dropped }: Wire): Line {
    let line: Line;
    if (typeof dropped === "number") {
      const count = dropped.toLocaleString();
      line = this.#make(
        "dropped",
        `${count} ${dropped === 1 ? "line" : "lines"} dropped: they came too fast`,
      );
    } else if (typeof gap === "string") line = this.#make("gap", gap);
    else if (typeof note === "string") line = this.#make("note", note);
    else if (isEvent(data)) line = { ...this.#make("event", textOf(data)), event: data };
    else {
      const source = typeof s === "string" ? s : "";
      let ansi = this.#ansi.get(source);
      if (!ansi) {
        ansi = new Ansi();
        this.#ansi.set(source, ansi);
      }
      const { text, spans } = ansi.line(typeof m === "string" ? m : "");
      line = {
        seq: ++this.#seq,
        kind: "line",
        text,
        ...(spans ? { spans } : {}),
        ...(source ? { source } : {}),
      };
      // What would have switched the colour off may be in the part that is not here.
      if (cut) ansi.reset();
    }
    if (line.kind !== "line") this.#ansi.clear();
    if (typeof t === "number") line.at = t;
    if (cut) line.cut = true;
    return line;
  }

  #make(kind: Line["kind"], text: string): Line {
    return { seq: ++this.#seq, kind, text };
  }

  #announce(text: string): void {
    this.#ansi.clear();
    this.#accept(this.#make("gap", text));
  }

  #accept(line: Line): void {
    const full = this.#lines.length >= LINES_MAX || this.#size >= TEXT_MAX;
    const waits = this.#mode === "paused" || (this.#mode === "holding" && full) || this.#waiting.length > 0;
    if (!waits) return this.#add(line);
    this.#waiting.push(line);
    if (this.#waiting.length > WAITING_MAX) {
      this.#waiting.shift();
      this.#waitingDropped++;
    }
  }

  #add(line: Line): void {
    this.#lines.push(line);
    this.#size += costOf(line);
    if (this.#mode !== "following") return;
    let drop = 0;
    while (this.#lines.length - drop > LINES_MAX || this.#size > TEXT_MAX) {
      this.#size -= costOf(this.#lines[drop] as Line);
      drop++;
    }
    if (drop > 0) this.#lines.splice(0, drop);
    this.#gone += drop;
  }

  #changed(): void {
    this.#view = undefined;
    for (const changed of this.#watchers) changed();
  }
}

const costOf = (line: Line): number => line.text.length + LINE_COST;

function linesOf(data: unknown): readonly Wire[] {
  if (typeof data !== "object" || data === null) return [];
  const { type, lines } = data as { type?: unknown; lines?: unknown };
  if (type !== "lines" || !Array.isArray(lines)) return [];
  return lines.filter((line) => typeof line === "object" && line !== null);
}

function isEvent(data: unknown): data is DockerEvent {
  if (typeof data !== "object" || data === null) return false;
  const { type, action } = data as Partial<DockerEvent>;
  return typeof type === "string" && typeof action === "string";
}

/** An event as one line of text: what is copied, searched and read out. */
function textOf({ type, action, id, name, image, exit, signal }: DockerEvent): string {
  const who = name || id?.slice(0, 12) || "";
  const more = [
    image && image !== name ? image : "",
    exit ? `exit code ${exit}` : "",
    signal ? `signal ${signal}` : "",
  ].filter(Boolean);
  return [type, action, who, ...(more.length > 0 ? [`(${more.join(", ")})`] : [])].filter(Boolean).join(" ");
}

/** The log as text, as it is copied and saved: a time, the stream, the line. */
export function asText(lines: readonly Line[]): string {
  const marks = { line: "", event: "", note: "-- ", gap: "-- gap: ", dropped: "-- " } as const;
  return lines
    .map(({ at, source, kind, text, cut }) =>
      [
        at === undefined ? "" : new Date(at).toISOString(),
        source ?? "",
        `${marks[kind]}${text}${cut ? " […]" : ""}`,
      ]
        .filter(Boolean)
        .join(" "),
    )
    .map((line) => `${line}\n`)
    .join("");
}
