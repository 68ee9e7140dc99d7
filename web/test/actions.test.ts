// What the page asks of the server when somebody changes a todo, and what it does not.
import { afterEach, expect, test, vi } from "vitest";
import { Problem } from "../src/app/api";
import type { Session } from "../src/app/session";
import { type Todo, TodoModel } from "../src/app/todos/model";
import { TodoActions } from "../src/app/todos/useTodos";

const todo = (id: string, over: Partial<Todo> = {}): Todo => ({
  id,
  title: id,
  done: false,
  version: 1,
  createdAt: "2026-01-01T00:00:00Z",
  updatedAt: "2026-01-01T00:00:00Z",
  ...over,
});

type Call = { path: string; method?: string; headers?: Record<string, string> };

function scene(answer: (call: Call) => unknown) {
  const calls: Call[] = [];
  const api = async (path: string, options: object = {}) => {
    const call = { path, ...options };
    calls.push(call);
    return { data: await answer(call), headers: new Headers() };
  };
  const model = new TodoModel();
  const session = { user: "ann", roles: [], getToken: async () => "", api } as unknown as Session;
  return { calls, model, actions: new TodoActions(session, model) };
}

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

test("offline nothing is queued: each change is tried once, taken back, and not sent when the network is there again", async () => {
  vi.useFakeTimers();
  const online = vi.spyOn(navigator, "onLine", "get").mockReturnValue(false);
  const { calls, model, actions } = scene(() => {
    throw new Problem(0, "Not reachable", "The server can't be reached.");
  });
  model.learn(todo("a"));
  const before = model.view();
  const asked = [
    actions.add("new"),
    actions.patch("a", { done: true }),
    actions.remove("a"),
    actions.clearCompleted(),
  ];
  for (const outcome of await Promise.all(asked)) expect(outcome.ok).toBe(false);
  expect(model.view()).toEqual(before);
  expect(calls).toHaveLength(4);
  online.mockReturnValue(true);
  await vi.advanceTimersByTimeAsync(120_000);
  expect(calls).toHaveLength(4);
});

test("with a network, a lost creation is repeated under the same id", async () => {
  vi.useFakeTimers();
  let lost = true;
  const { calls, model, actions } = scene(({ path }) => {
    if (lost) {
      lost = false;
      throw new Problem(0, "No answer", "");
    }
    return todo(path.slice("/api/todos/".length));
  });
  const added = actions.add("new");
  await vi.advanceTimersByTimeAsync(60_000);
  expect((await added).ok).toBe(true);
  expect(calls.map((c) => c.method)).toEqual(["PUT", "PUT"]);
  expect(calls[0]?.path).toBe(calls[1]?.path);
  expect(model.view()).toHaveLength(1);
});

test("bringing back leaves alone what exists again, and brings the rest", async () => {
  const { calls, model, actions } = scene(({ path, method }) => {
    if (path !== "/api/todos/b") return todo(path.slice(-1), { version: 3 });
    if (method === "PUT") throw new Problem(412, "Precondition Failed", "");
    return todo("b", { title: "b of another device", version: 4 });
  });
  const gone = ["a", "b", "c", "d", "e", "f"].map((id) => todo(id));
  expect((await actions.restore(gone)).ok).toBe(true);
  const puts = calls.filter((c) => c.method === "PUT");
  expect(puts).toHaveLength(6);
  for (const put of puts) expect(put.headers).toEqual({ "If-None-Match": "*" });
  expect(model.view().map((item) => item.title)).toContain("b of another device");
  expect(model.view()).toHaveLength(6);
});
