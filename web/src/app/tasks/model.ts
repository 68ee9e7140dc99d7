// Background tasks of this user: the newest state of each by version, whatever order answers and events come in.

export interface Task {
  id: string;
  kind: "import" | "export";
  format: "json" | "csv";
  state: "queued" | "running" | "completed" | "failed" | "cancelled";
  /** Rows or todos dealt with, of `total`; 0 until it is known. */
  done: number;
  total: number;
  created: number;
  skipped: number;
  errors?: { row: number; line: number; problem: string }[];
  error?: { code: string; detail: string };
  version: number;
  createdAt: string;
  updatedAt: string;
}

export interface TaskEvent {
  type: "task.created" | "task.progress" | "task.completed" | "task.failed";
  task: Task;
}

export const isFinal = ({ state }: Task): boolean =>
  state === "completed" || state === "failed" || state === "cancelled";

export type TaskTable = ReadonlyMap<string, Task>;

/** The table with these states taken in; the same table if none was news. */
export function merge(table: TaskTable, tasks: readonly Task[]): TaskTable {
  let next: Map<string, Task> | undefined;
  for (const task of tasks) {
    const known = (next ?? table).get(task.id);
    if (known && known.version >= task.version) continue;
    next ??= new Map(table);
    next.set(task.id, task);
  }
  return next ?? table;
}

/** How long a finished task is worth showing without having been asked for, milliseconds. */
const RECENT = 10 * 60_000;

/** Unfinished tasks and those that ended lately, newest first, without the dismissed. */
export function shown(table: TaskTable, dismissed: ReadonlySet<string>, now: number): Task[] {
  return [...table.values()]
    .filter(
      (task) => !dismissed.has(task.id) && (!isFinal(task) || now - Date.parse(task.updatedAt) < RECENT),
    )
    .sort((a, b) => Date.parse(b.createdAt) - Date.parse(a.createdAt));
}

export function describeTask(task: Task): string {
  const what = task.kind === "import" ? "Import" : `Export as ${task.format.toUpperCase()}`;
  const count = (n: number) => `${n.toLocaleString()} ${n === 1 ? "todo" : "todos"}`;
  switch (task.state) {
    case "queued":
      return `${what}: waiting for a worker`;
    case "running":
      return task.total > 0
        ? `${what}: ${task.done.toLocaleString()} of ${count(task.total)}`
        : `${what}: reading`;
    case "completed":
      if (task.kind === "export") return `Exported ${count(task.total)} as ${task.format.toUpperCase()}`;
      return task.skipped > 0
        ? `Imported ${count(task.created)}, left out ${task.skipped.toLocaleString()}`
        : `Imported ${count(task.created)}`;
    case "failed":
      return `${what} failed: ${task.error?.detail ?? "no reason given"}`;
    case "cancelled":
      return task.kind === "import" && task.created > 0
        ? `Import cancelled; the ${count(task.created)} made so far stay`
        : `${what} cancelled`;
  }
}
