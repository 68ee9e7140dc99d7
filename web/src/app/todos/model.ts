// What the page knows of the todos: the server's states by version, and on top of them what this page has asked for and not yet heard back.
// Pure data and functions; the order in which answers and events arrive does not matter.

export interface Todo {
  id: string;
  title: string;
  done: boolean;
  version: number;
  createdAt: string;
  updatedAt: string;
  note?: string;
  dueAt?: string;
}

export type TodoEvent =
  | { type: "todo.created" | "todo.updated" | "todo.deleted"; todo: Todo }
  | { type: "todos.changed" };

export type TodoPatch = Partial<Pick<Todo, "title" | "done">> & {
  note?: string | null;
  dueAt?: string | null;
};

/** A change that was asked for and not answered yet. It is shown, and taken back if it is refused. */
export type Pending =
  | { key: string; kind: "create"; todo: Todo }
  | { key: string; kind: "patch"; id: string; patch: TodoPatch }
  | { key: string; kind: "delete"; id: string };

interface Entry {
  todo: Todo;
  deleted: boolean;
  /** The deletion is a guess at what the server did with this version: a state of the same version that is heard of takes its place. */
  guessed?: boolean;
  /** When this page learned of it, counted in changes; tells which entries a running fetch could not have seen. */
  learned: number;
}

export interface TodoItem extends Todo {
  pending: boolean;
}

export class TodoModel {
  readonly #entries = new Map<string, Entry>();
  #pending: readonly Pending[] = [];
  #clock = 0;
  #view: readonly TodoItem[] | undefined;
  #watchers = new Set<() => void>();

  watch = (changed: () => void): (() => void) => {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  };

  /** Newest first; the same array until something changes. */
  view = (): readonly TodoItem[] => {
    this.#view ??= this.#compute();
    return this.#view;
  };

  /** The server's latest known state, without what is pending. */
  get(id: string): Todo | undefined {
    const entry = this.#entries.get(id);
    return entry && !entry.deleted ? entry.todo : undefined;
  }

  /** A point in time to give to `reconcile`. */
  now(): number {
    return this.#clock;
  }

  /** Takes one state of one todo; an older version than the known one is ignored. Answers whether it was news. */
  learn(todo: Todo, deleted = false): boolean {
    const known = this.#entries.get(todo.id);
    if (known && todo.version < known.todo.version + (known.guessed ? 0 : 1)) return false;
    this.#entries.set(todo.id, { todo, deleted, learned: ++this.#clock });
    this.#changed();
    return true;
  }

  apply(event: TodoEvent): void {
    if (event.type !== "todos.changed") this.learn(event.todo, event.type === "todo.deleted");
  }

  /** Takes a whole list that was asked for at `since`: what it lacks and nobody mentioned after that is gone. */
  reconcile(list: readonly Todo[], since: number): void {
    const listed = new Set<string>();
    for (const todo of list) {
      listed.add(todo.id);
      const known = this.#entries.get(todo.id);
      if (!known || todo.version > known.todo.version) {
        this.#entries.set(todo.id, { todo, deleted: false, learned: ++this.#clock });
      }
    }
    for (const [id, entry] of this.#entries) {
      if (!entry.deleted && !listed.has(id) && entry.learned <= since) this.#entries.delete(id);
    }
    this.#changed();
  }

  propose(pending: Pending): void {
    this.#pending = [...this.#pending, pending];
    this.#changed();
  }

  /** Ends a proposal: with the server's answer it becomes fact, without one it is taken back. */
  settle(key: string, answer?: Todo): void {
    this.#pending = this.#pending.filter((p) => p.key !== key);
    if (!answer || !this.learn(answer)) this.#changed();
  }

  /** Ends a proposed deletion that the server has confirmed. Its event may come later, with the version. */
  forget(key: string, id: string): void {
    const known = this.#entries.get(id);
    if (known && !known.deleted) {
      // One version up, as the server counted: an event of the state before it must not bring it back.
      this.#entries.set(id, {
        todo: { ...known.todo, version: known.todo.version + 1 },
        deleted: true,
        learned: ++this.#clock,
      });
    }
    this.settle(key);
  }

  /**
   * Ends the deletion of a todo that "clear done" was to take at `version`. The server passes over what was changed meanwhile and does not
   * say which, so a newer state stays, and one that is still on its way will be taken.
   */
  cleared(key: string, id: string, version: number): void {
    const known = this.#entries.get(id);
    if (known && !known.deleted && known.todo.version <= version) {
      const todo = { ...known.todo, version: known.todo.version + 1 };
      this.#entries.set(id, { todo, deleted: true, guessed: true, learned: ++this.#clock });
    }
    this.settle(key);
  }

  #compute(): readonly TodoItem[] {
    const items = new Map<string, TodoItem>();
    for (const [id, { todo, deleted }] of this.#entries) {
      if (!deleted) items.set(id, { ...todo, pending: false });
    }
    for (const p of this.#pending) {
      if (p.kind === "create") {
        if (!items.has(p.todo.id)) items.set(p.todo.id, { ...p.todo, pending: true });
      } else if (p.kind === "delete") {
        items.delete(p.id);
      } else {
        const item = items.get(p.id);
        if (item) items.set(p.id, patched(item, p.patch));
      }
    }
    // Times are parsed: servers drop trailing zeros of a second's fraction, so the texts don't sort.
    return [...items.values()]
      .map((item) => ({ item, at: Date.parse(item.createdAt) || 0 }))
      .sort((a, b) => b.at - a.at || compare(b.item.id, a.item.id))
      .map(({ item }) => item);
  }

  #changed(): void {
    this.#view = undefined;
    for (const changed of this.#watchers) changed();
  }
}

function patched(item: TodoItem, { note, dueAt, ...rest }: TodoPatch): TodoItem {
  const next: TodoItem = { ...item, ...rest, pending: true };
  if (note === null || note === "") delete next.note;
  else if (note !== undefined) next.note = note;
  if (dueAt === null) delete next.dueAt;
  else if (dueAt !== undefined) next.dueAt = dueAt;
  return next;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export type Filter = "all" | "active" | "done";

/** The todos that the filter and the words let through; every word must occur in the title or the note. */
export function select(items: readonly TodoItem[], filter: Filter, text: string): readonly TodoItem[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (filter === "all" && words.length === 0) return items;
  return items.filter((item) => {
    if (filter === "active" && item.done) return false;
    if (filter === "done" && !item.done) return false;
    const haystack = `${item.title}\n${item.note ?? ""}`.toLowerCase();
    return words.every((word) => haystack.includes(word));
  });
}
