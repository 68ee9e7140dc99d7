import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { asProblem } from "../session";
import { TaskList } from "../tasks/TaskList";
import { TaskMenu } from "../tasks/TaskMenu";
import { useTasks } from "../tasks/useTasks";
import { Icon } from "../ui/Icon";
import { useToast } from "../ui/toast";
import { useOnline } from "../ui/useOnline";
import { AddTodo } from "./AddTodo";
import { ConfirmClear } from "./ConfirmClear";
import { isTyping } from "./keys";
import { type Filter, select, type TodoItem } from "./model";
import { TodoList } from "./TodoList";
import { type Outcome, useTodos } from "./useTodos";

const FILTERS: readonly { value: Filter; label: string }[] = [
  { value: "all", label: "All" },
  { value: "active", label: "Open" },
  { value: "done", label: "Done" },
];
/** How many cleared todos one press brings back; with more, "Clear done" asks first. */
export const UNDO_MAX = 100;
/** From how many todos on a search field earns its place. */
const SEARCH_FROM = 8;

export function TodoPanel() {
  const { items, isLoading, problem, retry, actions, channel } = useTodos();
  // Connected, and yet the node can't follow the channel: its Redis is away. Reading and writing go on over REST.
  const deaf = channel.state === "subscribing" && channel.error !== undefined;
  const online = useOnline();
  const toast = useToast();
  const [filter, setFilter] = useState<Filter>("all");
  const [text, setText] = useState("");
  const [asking, setAsking] = useState(false);
  const search = useRef<HTMLInputElement>(null);
  const shown = useMemo(() => select(items, filter, text), [items, filter, text]);
  const tasks = useTasks();
  const open = useMemo(() => items.filter((item) => !item.done).length, [items]);
  const done = items.length - open;

  const refused = useCallback(
    (outcome: Outcome, what: string, again?: () => void) => {
      if (outcome.ok) return;
      toast({
        text: `${what} ${outcome.problem.message}`,
        tone: "danger",
        ...(again ? { action: { label: "Try again", run: again } } : {}),
      });
    },
    [toast],
  );

  const add = async (title: string, dueAt?: string): Promise<boolean> => {
    const outcome = await actions.add(title, dueAt);
    refused(outcome, "Not added.");
    return outcome.ok;
  };
  const toggle = useCallback(
    async (item: TodoItem) => {
      const change = () => actions.patch(item.id, { done: !item.done });
      refused(await change(), "Not changed.", () => void change());
    },
    [actions, refused],
  );
  const remove = useCallback(
    async (item: TodoItem) => {
      const { pending: _, ...todo } = item;
      const run = () => actions.remove(item.id);
      const outcome = await run();
      if (!outcome.ok) return refused(outcome, "Not deleted.", () => void run());
      toast({
        text: `Deleted “${short(item.title)}”`,
        action: {
          label: "Undo",
          run: () => void actions.restore([todo]).then((o) => refused(o, "Not brought back.")),
        },
      });
    },
    [actions, refused, toast],
  );
  const begin = async (run: () => Promise<void>) => {
    try {
      await run();
    } catch (error) {
      toast({ text: `Not started. ${asProblem(error).message}`, tone: "danger" });
    }
  };
  const clear = async () => {
    setAsking(false);
    const gone = items.filter((item) => item.done).map(({ pending: _, ...todo }) => todo);
    const outcome = await actions.clearCompleted();
    if (!outcome.ok) return refused(outcome, "Not cleared.");
    const run = () => void actions.restore(gone).then((o) => refused(o, "Not all brought back."));
    toast({
      text: gone.length === 1 ? "Cleared 1 todo" : `Cleared ${gone.length.toLocaleString()} todos`,
      ...(gone.length <= UNDO_MAX ? { action: { label: "Undo", run } } : {}),
    });
  };

  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key !== "/" || isTyping(event.target)) return;
      event.preventDefault();
      search.current?.focus();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);

  return (
    <section className="panel todos" aria-labelledby="todos-title" data-panel="todos">
      <div className="todos-column">
        <div className="panel-head">
          <h2 id="todos-title">Todos</h2>
          <p className="faint tabular" role="status">
            {isLoading
              ? ""
              : items.length === 0
                ? ""
                : open === 0
                  ? "All done"
                  : `${open.toLocaleString()} open`}
          </p>
          <span className="spring" />
          <TaskMenu
            disabled={!online}
            empty={items.length === 0}
            onImport={(file) => void begin(() => tasks.startImport(file))}
            onExport={(format) => void begin(() => tasks.startExport(format))}
          />
        </div>
        <AddTodo onAdd={add} disabled={!online} />
        <TaskList tasks={tasks} />
        <div className="todo-tools" hidden={items.length === 0}>
          <fieldset className="segments">
            <legend className="visually-hidden">Show</legend>
            {FILTERS.map(({ value, label }) => (
              <label key={value}>
                <input
                  type="radio"
                  name="filter"
                  value={value}
                  checked={filter === value}
                  onChange={() => setFilter(value)}
                />
                <span>{label}</span>
              </label>
            ))}
          </fieldset>
          {items.length >= SEARCH_FROM && (
            <label className="search">
              <Icon name="search" size={18} />
              <span className="visually-hidden">Search todos</span>
              <input
                ref={search}
                type="search"
                placeholder="Search"
                value={text}
                onChange={(event) => setText(event.target.value)}
                onKeyDown={(event) => event.key === "Escape" && setText("")}
              />
            </label>
          )}
          <button
            type="button"
            className="button quiet small"
            disabled={done === 0 || !online}
            onClick={() => (done > UNDO_MAX ? setAsking(true) : void clear())}
          >
            Clear done
          </button>
        </div>
        {asking && (
          <ConfirmClear count={done} onClose={() => setAsking(false)} onConfirm={() => void clear()} />
        )}
        {deaf && online && (
          <p className="inline-note" role="status">
            Changes from your other tabs and devices don’t arrive at the moment. What you change here is
            saved.
          </p>
        )}
        {problem && items.length > 0 && (
          <p className="inline-problem" role="alert">
            This list may be out of date. {problem.message}{" "}
            <button type="button" className="link" onClick={retry}>
              Read it again
            </button>
          </p>
        )}
        {isLoading && problem ? (
          <Blank icon="warn" title="The todos can’t be read" text={problem.message}>
            <button type="button" className="button" onClick={retry}>
              Try again
            </button>
          </Blank>
        ) : isLoading ? (
          <Skeleton />
        ) : items.length === 0 ? (
          <Blank
            icon="list"
            title="Nothing to do yet"
            text="Add a todo above. It shows up in every tab and device where you are signed in, as soon as it is saved."
          />
        ) : shown.length === 0 ? (
          <Blank
            icon="search"
            title={filter === "done" && text === "" ? "Nothing done yet" : "Nothing matches"}
            text={text === "" ? "Todos that you complete appear here." : `No todo has “${text}” in it.`}
          />
        ) : (
          <TodoList
            items={shown}
            disabled={!online}
            onToggle={toggle}
            onRemove={remove}
            actions={actions}
            onRefused={refused}
          />
        )}
      </div>
    </section>
  );
}

function Blank(props: {
  icon: "list" | "search" | "warn";
  title: string;
  text: string;
  children?: React.ReactNode;
}) {
  return (
    <div className="blank">
      <span className="blank-icon">
        <Icon name={props.icon} size={24} />
      </span>
      <h3>{props.title}</h3>
      <p>{props.text}</p>
      {props.children}
    </div>
  );
}

const LINES = ["a", "b", "c", "d", "e"];
function Skeleton() {
  return (
    <div className="skeleton" role="status" aria-label="Reading your todos">
      {LINES.map((line) => (
        <div key={line} className="skeleton-row" data-width={line} />
      ))}
    </div>
  );
}

function short(title: string): string {
  return title.length > 40 ? `${title.slice(0, 39)}…` : title;
}
