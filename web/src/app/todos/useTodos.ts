// The todos of this user: read over REST, kept up by the channel, changed optimistically.
import { useQuery } from "@tanstack/react-query";
import { UnauthorizedError, type UseChannel } from "@tideline/react";
import { useQueryChannel } from "@tideline/react/query";
import { useMemo, useRef, useState, useSyncExternalStore } from "react";
import type { Problem } from "../api";
import { backoff } from "../backoff";
import { uuid } from "../ids";
import { asProblem, type Session, useSession } from "../session";
import { type Todo, type TodoEvent, type TodoItem, TodoModel, type TodoPatch } from "./model";

/** How many todos one page of the list holds. */
const PAGE = 500;
/** Pages read at most: past it the server has more todos than it allows a user to have. */
const PAGES = 40;
/** Tries of a call that can be repeated without harm. */
const TRIES = 3;
/** Requests of one "clear done" at most. */
const CLEAR_ROUNDS = 20;
/** How many requests bring cleared todos back at a time. */
const RESTORE_AT_ONCE = 4;

interface Page {
  items: Todo[];
  next?: string;
}

export interface Todos {
  items: readonly TodoItem[];
  /** Nothing has been read yet. */
  isLoading: boolean;
  /** The last read failed, and there is nothing older to show or it may be out of date. */
  problem: Problem | null;
  retry: () => void;
  channel: UseChannel;
  actions: TodoActions;
}

export function useTodos(): Todos {
  const session = useSession();
  const [model] = useState(() => new TodoModel());
  const queryKey = useMemo(() => ["todos", session.user] as const, [session.user]);
  const items = useSyncExternalStore(model.watch, model.view);

  const channel = useQueryChannel<TodoEvent>(`todos:#${session.user}`, {
    queryKey,
    onPublication: ({ data }) => {
      if (data.type === "todos.changed") void query.refetch();
      else model.apply(data);
    },
  });
  const query = useQuery({
    queryKey,
    queryFn: ({ signal }) => readAll(session, model, signal),
    retry: (failures, error) => failures < TRIES && !(error instanceof UnauthorizedError),
    retryDelay: (failures) => backoff(failures),
    refetchOnWindowFocus: false,
    staleTime: Number.POSITIVE_INFINITY,
  });

  const actions = useRef<TodoActions | null>(null);
  actions.current ??= new TodoActions(session, model);
  return {
    items,
    isLoading: query.data === undefined && items.length === 0,
    problem: query.isError ? asProblem(query.error) : null,
    retry: () => void query.refetch(),
    channel,
    actions: actions.current,
  };
}

/** Reads all pages into the model. Answers how many there are. */
async function readAll(session: Session, model: TodoModel, signal: AbortSignal): Promise<number> {
  const since = model.now();
  const all: Todo[] = [];
  let cursor: string | undefined;
  for (let page = 0; page < PAGES; page++) {
    const query = new URLSearchParams({ limit: String(PAGE), ...(cursor === undefined ? {} : { cursor }) });
    const { data } = await session.api<Page>(`/api/todos?${query}`, { signal });
    for (const todo of data.items) model.learn(todo);
    all.push(...data.items);
    cursor = data.next;
    if (!cursor) break;
  }
  model.reconcile(all, since);
  return all.length;
}

export type Outcome = { ok: true; todo?: Todo } | { ok: false; problem: Problem; conflict: boolean };

/** Changes to todos. Each is shown at once and taken back if it is refused; changes of one todo are sent one after the other. */
export class TodoActions {
  readonly #session: Session;
  readonly #model: TodoModel;
  readonly #queues = new Map<string, Promise<unknown>>();

  constructor(session: Session, model: TodoModel) {
    this.#session = session;
    this.#model = model;
  }

  add(title: string, dueAt?: string): Promise<Outcome> {
    const now = new Date().toISOString();
    const todo: Todo = { id: uuid(), title, done: false, version: 0, createdAt: now, updatedAt: now };
    if (dueAt !== undefined) todo.dueAt = dueAt;
    return this.#put(todo);
  }

  /** Brings deleted todos back, under their old ids and in their old places. What exists again by then is left as it is. */
  async restore(todos: readonly Todo[]): Promise<Outcome> {
    const rest = [...todos];
    let outcome: Outcome = { ok: true };
    const work = async () => {
      for (let todo = rest.shift(); todo && outcome.ok; todo = rest.shift()) {
        const one = await this.#put(todo, { "If-None-Match": "*" });
        if (!one.ok && !one.conflict) outcome = one;
      }
    };
    await Promise.all(Array.from({ length: RESTORE_AT_ONCE }, work));
    return outcome;
  }

  /**
   * Changes a todo. With `basedOn` the change is refused (`conflict`) if somebody else has changed it since that version; without,
   * the last one wins, which is what a checkbox means.
   */
  patch(id: string, patch: TodoPatch, basedOn?: number): Promise<Outcome> {
    const key = uuid();
    this.#model.propose({ key, kind: "patch", id, patch });
    return this.#inOrder(id, async () => {
      try {
        const { data } = await this.#session.api<Todo>(`/api/todos/${id}`, {
          method: "PATCH",
          body: patch,
          headers: basedOn === undefined ? {} : { "If-Match": `"${basedOn}"` },
        });
        this.#model.settle(key, data);
        return { ok: true, todo: data };
      } catch (error) {
        const problem = asProblem(error);
        const newer = problem.status === 412 ? await this.#read(id) : undefined;
        this.#model.settle(key, newer);
        return { ok: false, problem, conflict: problem.status === 412 };
      }
    });
  }

  remove(id: string): Promise<Outcome> {
    const key = uuid();
    this.#model.propose({ key, kind: "delete", id });
    return this.#inOrder(id, async () => {
      try {
        await repeat(() => this.#session.api(`/api/todos/${id}`, { method: "DELETE" }));
      } catch (error) {
        const problem = asProblem(error);
        if (problem.status !== 404) {
          this.#model.settle(key);
          return { ok: false, problem, conflict: false };
        }
      }
      this.#model.forget(key, id);
      return { ok: true };
    });
  }

  async clearCompleted(): Promise<Outcome> {
    const done = this.#model.view().filter((item) => item.done);
    const keys = done.map(({ id, version }) => ({ key: uuid(), id, version }));
    for (const { key, id } of keys) this.#model.propose({ key, kind: "delete", id });
    try {
      // The server may run out of time and say that there is more.
      for (let round = 0; round < CLEAR_ROUNDS; round++) {
        const { data } = await this.#session.api<{ more?: boolean }>("/api/todos/clear-completed", {
          method: "POST",
        });
        if (!data.more) break;
      }
      for (const { key, id, version } of keys) this.#model.cleared(key, id, version);
      return { ok: true };
    } catch (error) {
      for (const { key } of keys) this.#model.settle(key);
      return { ok: false, problem: asProblem(error), conflict: false };
    }
  }

  #put(todo: Todo, headers: Record<string, string> = {}): Promise<Outcome> {
    const key = uuid();
    this.#model.propose({ key, kind: "create", todo });
    const { title, done, note, dueAt } = todo;
    const body = { title, done, ...(note ? { note } : {}), ...(dueAt ? { dueAt } : {}) };
    return this.#inOrder(todo.id, async () => {
      try {
        // The id is ours, so a repeated PUT creates once.
        const { data } = await repeat(() =>
          this.#session.api<Todo>(`/api/todos/${todo.id}`, { method: "PUT", body, headers }),
        );
        this.#model.settle(key, data);
        return { ok: true, todo: data };
      } catch (error) {
        const problem = asProblem(error);
        const conflict = problem.status === 412;
        this.#model.settle(key, conflict ? await this.#read(todo.id) : undefined);
        return { ok: false, problem, conflict };
      }
    });
  }

  async #read(id: string): Promise<Todo | undefined> {
    try {
      return (await this.#session.api<Todo>(`/api/todos/${id}`)).data;
    } catch {
      return undefined; // the event with the newer state is on its way
    }
  }

  #inOrder(id: string, run: () => Promise<Outcome>): Promise<Outcome> {
    const mine = (this.#queues.get(id) ?? Promise.resolve()).then(run);
    this.#queues.set(id, mine);
    void mine.finally(() => {
      if (this.#queues.get(id) === mine) this.#queues.delete(id);
    });
    return mine;
  }
}

/** Repeats an idempotent call whose request or answer was lost, or that met a server that was busy. */
async function repeat<T>(run: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await run();
    } catch (error) {
      const problem = asProblem(error);
      if ((!problem.lost && problem.status !== 503) || attempt + 1 >= TRIES || !navigator.onLine) throw error;
      await new Promise((done) => setTimeout(done, backoff(attempt)));
    }
  }
}
