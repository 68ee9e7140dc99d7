import { memo } from "react";
import { Icon } from "../ui/Icon";
import { formatDue } from "../ui/time";
import type { TodoItem } from "./model";
import { TodoEditor } from "./TodoEditor";
import type { Outcome, TodoActions } from "./useTodos";

interface TodoRowProps {
  item: TodoItem;
  index: number;
  count: number;
  /** Distance from the top of the list, px. */
  start: number;
  measure: (node: HTMLElement | null) => void;
  /** One row at a time is reached by Tab; arrow keys move on from there. */
  inTabOrder: boolean;
  isEditing: boolean;
  disabled: boolean;
  actions: TodoActions;
  onFocus: (id: string) => void;
  onEdit: (id: string | null) => void;
  onToggle: (item: TodoItem) => void;
  onRemove: (item: TodoItem) => void;
  onRefused: (outcome: Outcome, what: string) => void;
}

export const TodoRow = memo(function TodoRow(props: TodoRowProps) {
  const { item, isEditing, disabled } = props;
  const tabIndex = props.inTabOrder || isEditing ? 0 : -1;
  const due = item.dueAt ? formatDue(item.dueAt) : null;
  return (
    // biome-ignore lint/a11y/useSemanticElements: see TodoList
    <div
      role="listitem"
      className="todo"
      data-testid="todo-item"
      data-id={item.id}
      data-index={props.index}
      data-done={item.done}
      data-pending={item.pending}
      aria-setsize={props.count}
      aria-posinset={props.index + 1}
      ref={props.measure}
      style={{ transform: `translateY(${props.start}px)` }}
      onFocus={() => props.onFocus(item.id)}
    >
      <label className="tick">
        <input
          type="checkbox"
          checked={item.done}
          disabled={disabled}
          tabIndex={tabIndex}
          aria-label={item.title}
          onChange={() => props.onToggle(item)}
        />
        <span className="tick-box" aria-hidden="true">
          <Icon name="check" size={16} />
        </span>
      </label>
      {isEditing ? (
        <TodoEditor
          item={item}
          actions={props.actions}
          onClose={() => props.onEdit(null)}
          onRefused={props.onRefused}
        />
      ) : (
        <>
          <button
            type="button"
            className="todo-text"
            tabIndex={tabIndex}
            disabled={disabled}
            onClick={() => props.onEdit(item.id)}
          >
            <span className="visually-hidden">Edit </span>
            <span className="todo-title">{item.title}</span>
            {item.note && <span className="todo-note">{item.note}</span>}
          </button>
          {due && (
            <span className="due" data-tone={item.done ? "later" : due.tone}>
              <Icon name="calendar" size={14} />
              <span className="visually-hidden">
                {due.tone === "late" && !item.done ? "Overdue: " : "Due "}
              </span>
              {due.text}
            </span>
          )}
          <button
            type="button"
            className="icon-button row-action"
            tabIndex={tabIndex}
            disabled={disabled}
            aria-label={`Delete ${item.title}`}
            title="Delete"
            onClick={() => props.onRemove(item)}
          >
            <Icon name="trash" size={18} />
          </button>
        </>
      )}
    </div>
  );
});
