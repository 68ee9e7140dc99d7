// Editing a todo in its row. Text being typed is never replaced: a change from elsewhere is shown beside it, and the user decides.
import { type KeyboardEvent, useEffect, useLayoutEffect, useRef, useState } from "react";
import { dayToDue, dueToDay } from "../ui/time";
import { TITLE_MAX } from "./AddTodo";
import type { TodoItem, TodoPatch } from "./model";
import type { Outcome, TodoActions } from "./useTodos";

const NOTE_MAX = 4000;

export function TodoEditor({
  item,
  actions,
  onClose,
  onRefused,
}: {
  item: TodoItem;
  actions: TodoActions;
  onClose: () => void;
  onRefused: (outcome: Outcome, what: string) => void;
}) {
  /** What the fields started from, and the version that a save refers to. */
  const [base, setBase] = useState(item);
  const [title, setTitle] = useState(item.title);
  const [note, setNote] = useState(item.note ?? "");
  const [due, setDue] = useState(dueToDay(item.dueAt));
  const [saving, setSaving] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const changedElsewhere =
    !item.pending &&
    item.version > base.version &&
    (item.title !== base.title || item.note !== base.note || item.dueAt !== base.dueAt);

  useEffect(() => {
    field.current?.focus();
    field.current?.select();
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the height follows the text
  useLayoutEffect(() => {
    const area = field.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
  }, [title]);

  // A change that doesn't touch these fields (done, say) only moves the version.
  useEffect(() => {
    if (!item.pending && item.version > base.version && !changedElsewhere) setBase(item);
  }, [item, base, changedElsewhere]);

  const trimmed = title.trim();
  const valid = trimmed !== "" && [...trimmed].length <= TITLE_MAX && note.length <= NOTE_MAX;

  const save = async () => {
    const patch: TodoPatch = {};
    if (trimmed !== base.title) patch.title = trimmed;
    if (note.trim() !== (base.note ?? "")) patch.note = note.trim() === "" ? null : note.trim();
    if (due !== dueToDay(base.dueAt)) patch.dueAt = dayToDue(due);
    if (Object.keys(patch).length === 0) return onClose();
    if (!valid) return;
    setSaving(true);
    const outcome = await actions.patch(item.id, patch, base.version);
    setSaving(false);
    if (outcome.ok) onClose();
    else if (!outcome.conflict) onRefused(outcome, "Not saved.");
  };
  const press = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.preventDefault();
      onClose();
    } else if (
      event.key === "Enter" &&
      !event.shiftKey &&
      !(event.target as HTMLElement).matches("button, .note-field")
    ) {
      event.preventDefault();
      void save();
    }
    event.stopPropagation();
  };
  const takeTheirs = () => {
    setBase(item);
    setTitle(item.title);
    setNote(item.note ?? "");
    setDue(dueToDay(item.dueAt));
  };

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: Enter and Escape of the fields inside
    <div className="editor" onKeyDown={press}>
      <textarea
        ref={field}
        className="title-field"
        aria-label="Title"
        rows={1}
        value={title}
        onChange={(event) => setTitle(event.target.value.replaceAll("\n", " "))}
      />
      <textarea
        className="note-field"
        aria-label="Note"
        placeholder="Note"
        rows={2}
        maxLength={NOTE_MAX}
        value={note}
        onChange={(event) => setNote(event.target.value)}
      />
      {changedElsewhere && (
        <div className="conflict" role="alert">
          <p>
            Changed elsewhere meanwhile: <strong>{item.title}</strong>
          </p>
          <div className="row">
            <button type="button" className="button small" onClick={takeTheirs}>
              Take that
            </button>
            <button type="button" className="button small" onClick={() => setBase(item)}>
              Keep what I typed
            </button>
          </div>
        </div>
      )}
      <div className="row">
        <label className="date">
          <span>Due</span>
          <input type="date" value={due} onChange={(event) => setDue(event.target.value)} />
        </label>
        <span className="spring" />
        <button type="button" className="button small quiet" onClick={onClose}>
          Cancel
        </button>
        <button
          type="button"
          className="button small primary"
          disabled={!valid || saving || changedElsewhere}
          onClick={() => void save()}
        >
          Save
        </button>
      </div>
    </div>
  );
}
