// Finding text in a log: which lines have it, and where in them.

import type { Span } from "./ansi";
import type { Line } from "./model";

/** The longest text that is looked for, characters. */
export const QUERY_MAX = 200;

/** One query, without regard to case. What it found out about a line it remembers, so that a growing log costs only its new lines. */
export class Search {
  readonly #pattern: RegExp | undefined;
  readonly #known = new WeakMap<Line, boolean>();

  constructor(readonly query: string) {
    if (query !== "")
      this.#pattern = new RegExp(query.slice(0, QUERY_MAX).replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "gi");
  }

  has(line: Line): boolean {
    if (!this.#pattern) return false;
    let found = this.#known.get(line);
    if (found === undefined) {
      this.#pattern.lastIndex = 0;
      found = this.#pattern.test(line.text);
      this.#known.set(line, found);
    }
    return found;
  }

  /** Where it is in a text, as [from, to), in order and apart. */
  ranges(text: string): [number, number][] {
    if (!this.#pattern) return [];
    this.#pattern.lastIndex = 0; // matchAll begins there
    return [...text.matchAll(this.#pattern)].map((match) => [match.index, match.index + match[0].length]);
  }
}

export interface Piece {
  text: string;
  span?: Span;
  found: boolean;
}

/** Cuts a line where its colours change and where a match begins or ends; the first `most` characters of it. */
export function pieces(
  line: Pick<Line, "text" | "spans">,
  ranges: readonly [number, number][],
  most = Number.POSITIVE_INFINITY,
): Piece[] {
  const spans: readonly (Span | { text: string })[] = line.spans ?? [{ text: line.text }];
  const out: Piece[] = [];
  let at = 0;
  let next = 0;
  for (const span of spans) {
    const begin = at;
    const end = Math.min(at + span.text.length, most);
    while (at < end) {
      while ((ranges[next]?.[1] ?? Number.POSITIVE_INFINITY) <= at) next++;
      const [from, to] = ranges[next] ?? [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
      const found = from <= at;
      const until = Math.min(end, found ? to : from);
      const text = span.text.slice(at - begin, until - begin);
      out.push("look" in span ? { text, span, found } : { text, found });
      at = until;
    }
  }
  return out;
}

/** The line to go to from `current` (a seq): the next match in that direction, around the end if need be. */
export function step(matches: readonly Line[], current: number | null, by: 1 | -1): Line | undefined {
  if (matches.length === 0) return undefined;
  if (current === null) return matches.at(by > 0 ? 0 : -1);
  if (by > 0) return matches.find(({ seq }) => seq > current) ?? matches[0];
  return matches.findLast(({ seq }) => seq < current) ?? matches.at(-1);
}
