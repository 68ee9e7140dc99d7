import { expect, test } from "vitest";
import { describeTask, merge, shown, type Task } from "../src/app/tasks/model";

const task = (over: Partial<Task>): Task => ({
  id: "t",
  kind: "import",
  format: "csv",
  state: "running",
  done: 0,
  total: 0,
  created: 0,
  skipped: 0,
  version: 1,
  createdAt: "2026-01-01T00:00:00Z",
  updatedAt: "2026-01-01T00:00:00Z",
  ...over,
});

test("progress that arrives late does not undo what is known", () => {
  const late = task({ version: 3, done: 30 });
  const table = merge(new Map(), [task({ version: 7, state: "completed" }), late]);
  expect(table.get("t")?.version).toBe(7);
  expect(merge(table, [late])).toBe(table);
});

test("unfinished tasks are shown, finished ones for ten minutes, dismissed ones not", () => {
  const now = Date.parse("2026-01-01T01:00:00Z");
  const table = merge(new Map(), [
    task({ id: "running" }),
    task({ id: "fresh", state: "completed", updatedAt: "2026-01-01T00:55:00Z" }),
    task({ id: "old", state: "completed", updatedAt: "2026-01-01T00:49:00Z" }),
    task({ id: "away", state: "failed", updatedAt: "2026-01-01T00:59:00Z" }),
  ]);
  expect(shown(table, new Set(["away"]), now).map(({ id }) => id)).toEqual(["running", "fresh"]);
});

test("a task says in words where it stands", () => {
  expect(describeTask(task({ done: 1200, total: 5000 }))).toBe("Import: 1,200 of 5,000 todos");
  expect(describeTask(task({ state: "completed", created: 1, skipped: 2 }))).toBe(
    "Imported 1 todo, left out 2",
  );
  expect(describeTask(task({ state: "cancelled", created: 98 }))).toContain("98 todos made so far stay");
  expect(
    describeTask(task({ state: "failed", error: { code: "bad-file", detail: "Not UTF-8." } })),
  ).toContain("Not UTF-8.");
});
