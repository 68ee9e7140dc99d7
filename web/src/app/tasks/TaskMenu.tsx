import { useEffect, useRef, useState } from "react";
import { Icon } from "../ui/Icon";

/** Import and export, behind one button. */
export function TaskMenu(props: {
  disabled: boolean;
  empty: boolean;
  onImport: (file: File) => void;
  onExport: (format: "json" | "csv") => void;
}) {
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const file = useRef<HTMLInputElement>(null);

  useEffect(() => {
    if (!open) return;
    box.current?.querySelector<HTMLElement>("[role=menuitem]:not(:disabled)")?.focus();
    const press = (event: KeyboardEvent) => {
      const items = [...(box.current?.querySelectorAll<HTMLElement>("[role=menuitem]:not(:disabled)") ?? [])];
      const at = items.indexOf(document.activeElement as HTMLElement);
      if (event.key === "Escape") {
        setOpen(false);
        button.current?.focus();
      } else if (event.key === "ArrowDown") items[(at + 1) % items.length]?.focus();
      else if (event.key === "ArrowUp") items[(at - 1 + items.length) % items.length]?.focus();
      else return;
      event.preventDefault();
    };
    const away = (event: PointerEvent) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    window.addEventListener("keydown", press);
    window.addEventListener("pointerdown", away);
    return () => {
      window.removeEventListener("keydown", press);
      window.removeEventListener("pointerdown", away);
    };
  }, [open]);

  const choose = (run: () => void) => () => {
    setOpen(false);
    button.current?.focus();
    run();
  };
  return (
    <div className="menu-box" ref={box}>
      <button
        ref={button}
        type="button"
        className="icon-button"
        aria-label="Import and export"
        title="Import and export"
        aria-haspopup="menu"
        aria-expanded={open}
        disabled={props.disabled}
        onClick={() => setOpen((was) => !was)}
      >
        <Icon name="more" />
      </button>
      {open && (
        <div className="menu" role="menu" aria-label="Import and export">
          <button type="button" role="menuitem" onClick={choose(() => file.current?.click())}>
            <Icon name="upload" size={18} />
            Import from JSON or CSV…
          </button>
          <button
            type="button"
            role="menuitem"
            disabled={props.empty}
            onClick={choose(() => props.onExport("json"))}
          >
            <Icon name="download" size={18} />
            Export as JSON
          </button>
          <button
            type="button"
            role="menuitem"
            disabled={props.empty}
            onClick={choose(() => props.onExport("csv"))}
          >
            <Icon name="download" size={18} />
            Export as CSV
          </button>
        </div>
      )}
      <input
        ref={file}
        type="file"
        hidden
        aria-label="File to import"
        data-testid="import-file"
        accept=".json,.csv,application/json,text/csv"
        onChange={(event) => {
          const chosen = event.target.files?.[0];
          event.target.value = "";
          if (chosen) props.onImport(chosen);
        }}
      />
    </div>
  );
}
