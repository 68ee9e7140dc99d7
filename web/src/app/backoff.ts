/** A random wait before try number `attempt` (from 0), milliseconds: full jitter, growing from `base`, at most `cap`. */
export function backoff(attempt: number, base = 500, cap = 20_000): number {
  return base / 2 + Math.random() * Math.min(cap, base * 2 ** Math.min(attempt, 16));
}
