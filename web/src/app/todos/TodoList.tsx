// The list itself: only the rows in view are in the document; arrow keys move between rows.
import { useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, useCallback, useRef, useState } from "react";
import type { TodoItem } from "./model";
import { TodoRow } from "./TodoRow";
import type { Outcome, TodoActions } from "./useTodos";

export interface TodoListProps {
  items: readonly TodoItem[];
  disabled: boolean;
  actions: TodoActions;
  onToggle: (item: TodoItem) => void;
  onRemove: (item: TodoItem) => void;
  onRefused: (outcome: Outcome, what: string) => void;
}

export function TodoList({ items, disabled, actions, onToggle, onRemove, onRefused }: TodoListProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const [current, setCurrent] = useState<string | null>(null);
  const [editing, setEditing] = useState<string | null>(null);
  const rows = useVirtualizer({
    count: items.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => 49,
    overscan: 10,
    getItemKey: (index) => items[index]?.id ?? index,
  });

  const focusRow = useCallback(
    (index: number) => {
      const target = items[Math.max(0, Math.min(items.length - 1, index))];
      if (!target) return;
      setCurrent(target.id);
      rows.scrollToIndex(items.indexOf(target), { align: "auto" });
      // The row may only be rendered after the scroll.
      requestAnimationFrame(() =>
        requestAnimationFrame(() => {
          const row = scroller.current?.querySelector<HTMLElement>(
            `[data-id="${target.id}"] input[type=checkbox]`,
          );
          row?.focus({ preventScroll: true });
        }),
      );
    },
    [items, rows],
  );

  const edit = useCallback(
    (id: string | null) => {
      setEditing(id);
      // The field that had the focus is gone: the row takes it, so that the keyboard stays where it was.
      if (id === null) focusRow(items.findIndex((item) => item.id === current));
    },
    [items, current, focusRow],
  );

  const press = (event: KeyboardEvent) => {
    if (editing !== null || event.metaKey || event.ctrlKey || event.altKey) return;
    const index = items.findIndex((item) => item.id === current);
    const item = items[index];
    const move: Record<string, number> = {
      ArrowDown: index + 1,
      j: index + 1,
      ArrowUp: index - 1,
      k: index - 1,
      Home: 0,
      End: items.length - 1,
    };
    const to = move[event.key];
    if (to !== undefined) {
      event.preventDefault();
      focusRow(to);
    } else if (item && event.target instanceof HTMLInputElement && event.key === "Enter" && !disabled) {
      event.preventDefault();
      setEditing(item.id);
    } else if (item && (event.key === "Delete" || event.key === "Backspace") && !disabled) {
      event.preventDefault();
      onRemove(item);
      focusRow(index + 1 < items.length ? index + 1 : index - 1);
    }
  };

  const first = current !== null && items.some((item) => item.id === current) ? current : items[0]?.id;
  return (
    <div
      className="todo-scroll"
      ref={scroller}
      // Without a control in it that takes the focus, the list itself must, or it can't be scrolled by keyboard.
      tabIndex={disabled ? 0 : undefined}
    >
      {/* biome-ignore lint/a11y/useSemanticElements: rows are placed absolutely inside a spacer, which a ul may not hold */}
      <div
        className="todo-list"
        role="list"
        aria-label="Todos"
        style={{ height: rows.getTotalSize() }}
        onKeyDown={press}
      >
        {rows.getVirtualItems().map((row) => {
          const item = items[row.index];
          if (!item) return null;
          return (
            <TodoRow
              key={item.id}
              item={item}
              index={row.index}
              count={items.length}
              start={row.start}
              measure={rows.measureElement}
              inTabOrder={item.id === first}
              isEditing={editing === item.id}
              disabled={disabled}
              actions={actions}
              onFocus={setCurrent}
              onEdit={edit}
              onToggle={onToggle}
              onRemove={onRemove}
              onRefused={onRefused}
            />
          );
        })}
      </div>
    </div>
  );
}
