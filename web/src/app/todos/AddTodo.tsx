import { type FormEvent, useEffect, useRef, useState } from "react";
import { Icon } from "../ui/Icon";
import { dayToDue } from "../ui/time";
import { isTyping } from "./keys";

/** The longest title, characters after trimming; the server holds it too. */
export const TITLE_MAX = 500;

/** The field for a new todo. What was typed comes back if it could not be saved. */
export function AddTodo({
  onAdd,
  disabled,
}: {
  onAdd: (title: string, dueAt?: string) => Promise<boolean>;
  disabled: boolean;
}) {
  const [title, setTitle] = useState("");
  const [due, setDue] = useState("");
  const input = useRef<HTMLInputElement>(null);
  const trimmed = title.trim();
  const over = [...trimmed].length - TITLE_MAX;

  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key !== "n" || event.metaKey || event.ctrlKey || event.altKey || isTyping(event.target))
        return;
      event.preventDefault();
      input.current?.focus();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (trimmed === "" || over > 0 || disabled) return;
    const typed = title;
    setTitle("");
    setDue("");
    const saved = await onAdd(trimmed, dayToDue(due) ?? undefined);
    if (!saved) setTitle((now) => (now === "" ? typed : now));
  };

  return (
    <form className="add" onSubmit={submit}>
      <div className="add-field">
        <label htmlFor="new-todo" className="visually-hidden">
          New todo
        </label>
        <input
          id="new-todo"
          ref={input}
          data-testid="todo-input"
          placeholder={disabled ? "Offline: read only" : "Add a todo"}
          autoComplete="off"
          enterKeyHint="done"
          value={title}
          readOnly={disabled}
          aria-invalid={over > 0}
          aria-describedby={over > 0 ? "new-todo-error" : undefined}
          onChange={(event) => setTitle(event.target.value)}
          onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
        />
        <label className="due-field" data-set={due !== ""} title="Due date">
          <Icon name="calendar" size={18} />
          <span className="visually-hidden">Due date</span>
          <input
            type="date"
            value={due}
            disabled={disabled}
            onChange={(event) => setDue(event.target.value)}
          />
        </label>
        <button type="submit" className="button primary" disabled={trimmed === "" || over > 0 || disabled}>
          <Icon name="plus" size={18} />
          Add
        </button>
      </div>
      {over > 0 && (
        <p id="new-todo-error" className="field-error" role="alert">
          {over} {over === 1 ? "character" : "characters"} too long: a title has at most {TITLE_MAX}.
        </p>
      )}
    </form>
  );
}
