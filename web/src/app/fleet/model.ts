// The nodes of the deployment as the registry has them, and their connections over the last minutes.

export interface NodeInfo {
  id: string;
  /** Of this start of the node: the same id may be used again. */
  boot: string;
  zone?: string;
  version: string;
  state: string;
  connections: number;
  channels: number;
  started: string;
  beat: string;
}

/** How often the registry is read, and how far back the chart goes, milliseconds. */
export const EVERY = 2_000;
const KEPT = 10 * 60_000;

/** Connections by node over time, for a chart: one row of times, and one of values for each node that was seen. */
export class FleetHistory {
  #times: number[] = [];
  readonly #series = new Map<string, (number | null)[]>();

  /** Takes one reading; a node that is not in it has no value at that time. */
  take(nodes: readonly NodeInfo[], at: number): void {
    if (at <= (this.#times.at(-1) ?? 0)) return;
    const drop = this.#times.findIndex((time) => time > at - KEPT);
    const from = drop < 0 ? this.#times.length : drop;
    this.#times = [...this.#times.slice(from), at];
    const counts = new Map<string, number>();
    for (const { id, connections } of nodes) counts.set(id, (counts.get(id) ?? 0) + connections);
    for (const id of counts.keys()) {
      if (!this.#series.has(id)) this.#series.set(id, new Array(this.#times.length - 1 + from).fill(null));
    }
    for (const [id, values] of this.#series) {
      const kept = [...values.slice(from), counts.get(id) ?? null];
      if (kept.every((value) => value === null)) this.#series.delete(id);
      else this.#series.set(id, kept);
    }
  }

  /** The nodes that have a row, in alphabetical order. */
  nodes(): string[] {
    return [...this.#series.keys()].sort();
  }

  times(): readonly number[] {
    return this.#times;
  }

  values(node: string): readonly (number | null)[] {
    return this.#series.get(node) ?? [];
  }
}

export function formatAge(since: string, now: number): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(since)) / 1000));
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}
