// Times as people read them, in the browser's language.
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const clockSeconds = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const shortDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const formatClock = (at: number): string => clock.format(at);
export const formatSeconds = (at: number): string => clockSeconds.format(at);
export const formatFull = (at: number): string => full.format(at);

export function formatDay(at: number, now = Date.now()): string {
  const days = daysBetween(now, at);
  if (days === 0) return "Today";
  if (days === -1) return "Yesterday";
  return day.format(at);
}

/** Whole days from `from` to `to` by the local calendar. */
export function daysBetween(from: number, to: number): number {
  const midnight = (at: number) => new Date(at).setHours(0, 0, 0, 0);
  return Math.round((midnight(to) - midnight(from)) / 86_400_000);
}

export interface Due {
  text: string;
  tone: "late" | "soon" | "later";
}

export function formatDue(dueAt: string, now = Date.now()): Due {
  const at = Date.parse(dueAt);
  const days = daysBetween(now, at);
  if (days < 0) return { text: days === -1 ? "Yesterday" : shortDay.format(at), tone: "late" };
  if (days === 0) return { text: "Today", tone: "soon" };
  if (days === 1) return { text: "Tomorrow", tone: "soon" };
  return { text: shortDay.format(at), tone: "later" };
}

/** A date input's value (local) as the end of that day, RFC 3339; and back. */
export function dayToDue(value: string): string | null {
  if (value === "") return null;
  const at = new Date(`${value}T23:59:59`);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
}
export function dueToDay(dueAt: string | undefined): string {
  if (!dueAt) return "";
  const at = new Date(dueAt);
  if (Number.isNaN(at.getTime())) return "";
  const two = (n: number) => String(n).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

export function formatMs(ms: number | undefined): string {
  if (ms === undefined) return "–";
  if (ms < 1) return "< 1 ms";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}
