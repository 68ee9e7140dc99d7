import { describe, expect, test } from "vitest";
import { select, type Todo, TodoModel } from "../src/app/todos/model";

const todo = (id: string, version: number, over: Partial<Todo> = {}): Todo => ({
  id,
  title: `${id} v${version}`,
  done: false,
  version,
  createdAt: "2026-01-01T00:00:00Z",
  updatedAt: "2026-01-01T00:00:00Z",
  ...over,
});
const titles = (model: TodoModel) => model.view().map((item) => item.title);

describe("events and answers in any order", () => {
  test("an older version never replaces a newer one", () => {
    const model = new TodoModel();
    model.apply({ type: "todo.updated", todo: todo("a", 3) });
    model.apply({ type: "todo.updated", todo: todo("a", 2) });
    model.apply({ type: "todo.created", todo: todo("a", 1) });
    expect(titles(model)).toEqual(["a v3"]);
  });

  test("a deletion holds against a late update, and gives way to a later creation", () => {
    const model = new TodoModel();
    model.apply({ type: "todo.created", todo: todo("a", 1) });
    model.apply({ type: "todo.deleted", todo: todo("a", 3) });
    model.apply({ type: "todo.updated", todo: todo("a", 2) });
    expect(titles(model)).toEqual([]);
    model.apply({ type: "todo.created", todo: todo("a", 4) });
    expect(titles(model)).toEqual(["a v4"]);
  });

  test("a list does not bring back what was deleted while it was being read", () => {
    const model = new TodoModel();
    model.learn(todo("a", 1));
    const since = model.now();
    model.apply({ type: "todo.deleted", todo: todo("a", 2) });
    model.reconcile([todo("a", 1)], since);
    expect(titles(model)).toEqual([]);
  });

  test("a list keeps what was created while it was being read, and drops what it lacks", () => {
    const model = new TodoModel();
    model.learn(todo("gone", 1));
    const since = model.now();
    model.apply({ type: "todo.created", todo: todo("new", 1, { createdAt: "2026-01-02T00:00:00Z" }) });
    model.reconcile([todo("kept", 1)], since);
    expect(titles(model)).toEqual(["new v1", "kept v1"]);
  });

  test("newest first, also where a fraction of a second lost its zeros", () => {
    const model = new TodoModel();
    model.learn(todo("older", 1, { createdAt: "2026-01-01T00:00:00.12Z" }));
    model.learn(todo("newer", 1, { createdAt: "2026-01-01T00:00:00.123Z" }));
    expect(titles(model)).toEqual(["newer v1", "older v1"]);
  });
});

describe("what is asked for and not answered", () => {
  test("is shown, and taken back when it is refused", () => {
    const model = new TodoModel();
    model.learn(todo("a", 1));
    model.propose({ key: "k", kind: "patch", id: "a", patch: { title: "typed" } });
    expect(model.view()[0]).toMatchObject({ title: "typed", pending: true });
    model.settle("k");
    expect(model.view()[0]).toMatchObject({ title: "a v1", pending: false });
  });

  test("stays on top of a newer state from elsewhere", () => {
    const model = new TodoModel();
    model.learn(todo("a", 1));
    model.propose({ key: "k", kind: "patch", id: "a", patch: { done: true } });
    model.apply({ type: "todo.updated", todo: todo("a", 2) });
    expect(model.view()[0]).toMatchObject({ title: "a v2", done: true });
  });

  test("a created todo is one row, whether its event or its answer comes first", () => {
    for (const eventFirst of [true, false]) {
      const model = new TodoModel();
      model.propose({ key: "k", kind: "create", todo: todo("a", 0) });
      if (eventFirst) model.apply({ type: "todo.created", todo: todo("a", 1) });
      model.settle("k", todo("a", 1));
      model.apply({ type: "todo.created", todo: todo("a", 1) });
      expect(model.view()).toEqual([{ ...todo("a", 1), pending: false }]);
    }
  });

  test("a confirmed deletion does not come back with an event of the state before it", () => {
    const model = new TodoModel();
    model.learn(todo("a", 4));
    model.propose({ key: "k", kind: "delete", id: "a" });
    model.forget("k", "a");
    model.apply({ type: "todo.updated", todo: todo("a", 4) });
    expect(titles(model)).toEqual([]);
  });

  test("null removes the note and the due date", () => {
    const model = new TodoModel();
    model.learn(todo("a", 1, { note: "n", dueAt: "2026-01-01T00:00:00Z" }));
    model.propose({ key: "k", kind: "patch", id: "a", patch: { note: null, dueAt: null } });
    expect(model.view()[0]).not.toHaveProperty("note");
    expect(model.view()[0]).not.toHaveProperty("dueAt");
  });
});

test("the view is the same array until something changes", () => {
  const model = new TodoModel();
  model.learn(todo("a", 1));
  const view = model.view();
  model.learn(todo("a", 1));
  expect(model.view()).toBe(view);
});

test("search wants every word, in title or note", () => {
  const model = new TodoModel();
  model.learn(todo("a", 1, { title: "Call the harbour", note: "before noon" }));
  model.learn(todo("b", 1, { title: "Call Ines", done: true }));
  const found = (text: string) => select(model.view(), "all", text).map(({ id }) => id);
  expect(found("CALL noon")).toEqual(["a"]);
  expect(found("call")).toHaveLength(2);
  expect(select(model.view(), "active", "call").map(({ id }) => id)).toEqual(["a"]);
});

describe("clear done", () => {
  const clear = (model: TodoModel) => {
    model.propose({ key: "k", kind: "delete", id: "a" });
    return () => model.cleared("k", "a", 4);
  };

  test("what was cleared does not come back with an event of the state before it", () => {
    const model = new TodoModel();
    model.learn(todo("a", 4, { done: true }));
    clear(model)();
    model.apply({ type: "todo.updated", todo: todo("a", 4) });
    expect(titles(model)).toEqual([]);
    model.apply({ type: "todo.deleted", todo: todo("a", 5) });
    expect(titles(model)).toEqual([]);
  });

  test("what another device reopened meanwhile stays, whether that is heard of before or after the answer", () => {
    for (const before of [true, false]) {
      const model = new TodoModel();
      model.learn(todo("a", 4, { done: true }));
      const answer = clear(model);
      if (before) model.apply({ type: "todo.updated", todo: todo("a", 5) });
      answer();
      if (!before) model.apply({ type: "todo.updated", todo: todo("a", 5) });
      expect(titles(model)).toEqual(["a v5"]);
    }
  });
});
