// Short messages at the bottom, with at most one thing to do about them. Announced politely; at most three at a time.
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useState } from "react";
import { Icon } from "./Icon";

export interface Toast {
  text: string;
  tone?: "plain" | "danger";
  action?: { label: string; run: () => void };
}

type Shown = Toast & { id: number };
const SHOWN = 3;
/** How long a message stays, milliseconds; longer with something to do. */
const STAY = 5_000;
const STAY_ACTION = 8_000;

const Context = createContext<(toast: Toast) => void>(() => {});
export const useToast = (): ((toast: Toast) => void) => useContext(Context);

let ids = 0;

export function ToastProvider({ children }: { children: ReactNode }) {
  const [toasts, setToasts] = useState<readonly Shown[]>([]);
  const show = useCallback((toast: Toast) => {
    setToasts((now) => [...now, { ...toast, id: ++ids }].slice(-SHOWN));
  }, []);
  const close = useCallback((id: number) => setToasts((now) => now.filter((t) => t.id !== id)), []);
  return (
    <Context.Provider value={show}>
      {children}
      <section className="toasts" aria-label="Messages" aria-live="polite">
        {toasts.map((toast) => (
          <ToastCard key={toast.id} toast={toast} close={close} />
        ))}
      </section>
    </Context.Provider>
  );
}

function ToastCard({ toast, close }: { toast: Shown; close: (id: number) => void }) {
  const [held, setHeld] = useState(false);
  useEffect(() => {
    if (held) return;
    const timer = setTimeout(() => close(toast.id), toast.action ? STAY_ACTION : STAY);
    return () => clearTimeout(timer);
  }, [held, toast, close]);
  const hold = useMemo(
    () => ({
      onPointerEnter: () => setHeld(true),
      onPointerLeave: () => setHeld(false),
      onFocus: () => setHeld(true),
      onBlur: () => setHeld(false),
    }),
    [],
  );
  return (
    <div className="toast" data-tone={toast.tone ?? "plain"} {...hold}>
      <p>{toast.text}</p>
      {toast.action && (
        <button
          type="button"
          className="toast-action"
          onClick={() => {
            toast.action?.run();
            close(toast.id);
          }}
        >
          {toast.action.label}
        </button>
      )}
      <button
        type="button"
        className="icon-button small"
        aria-label="Dismiss"
        onClick={() => close(toast.id)}
      >
        <Icon name="close" size={16} />
      </button>
    </div>
  );
}
