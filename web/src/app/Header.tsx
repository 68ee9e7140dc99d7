import { useConnection } from "@tideline/react";
import { Avatar } from "./ui/Avatar";
import { Icon, Mark } from "./ui/Icon";
import { nameOf } from "./ui/name";
import { type Theme, useTheme } from "./ui/theme";
import { useOnline } from "./ui/useOnline";

const NEXT: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };
const THEME_NAME: Record<Theme, string> = { auto: "as the system", light: "light", dark: "dark" };
const THEME_ICON = { auto: "auto", light: "sun", dark: "moon" } as const;

export function Header(props: { user: string; isOperator: boolean; onLink: () => void }) {
  const { user, isOperator, onLink } = props;
  const [theme, setTheme] = useTheme();
  return (
    <header className="top">
      <div className="brand">
        <Mark />
        <h1>Tideline</h1>
      </div>
      <ConnectionPill />
      <div className="top-actions">
        {isOperator && (
          <nav className="top-operator" aria-label="Operator">
            <a className="button quiet small" href="#nodes">
              Nodes
            </a>
            <a className="button quiet small" href="#logs">
              Logs
            </a>
          </nav>
        )}
        <button type="button" className="button quiet wide-only" onClick={onLink}>
          <Icon name="devices" />
          Open on another device
        </button>
        <button
          type="button"
          className="icon-button narrow-only"
          aria-label="Open on another device"
          title="Open on another device"
          onClick={onLink}
        >
          <Icon name="devices" />
        </button>
        <button
          type="button"
          className="icon-button"
          aria-label={`Theme: ${THEME_NAME[theme]}. Change`}
          title={`Theme: ${THEME_NAME[theme]}`}
          onClick={() => setTheme(NEXT[theme])}
        >
          <Icon name={THEME_ICON[theme]} />
        </button>
        <span className="me" title={`You are ${nameOf(user)} · ${user}`}>
          <Avatar user={user} />
          <span className="visually-hidden">You are {nameOf(user)}</span>
        </span>
      </div>
    </header>
  );
}

export function useLinkState(): { state: string; label: string } {
  const { state, reconnectCount, connectedAt, resumesAt } = useConnection();
  const online = useOnline();
  if (state === "connected") return { state, label: "Connected" };
  if (!online) return { state: "offline", label: "Offline" };
  if (resumesAt !== undefined) return { state: "paused", label: "Dropped" };
  if (state === "disconnected" && connectedAt !== undefined) return { state, label: "Disconnected" };
  return connectedAt === undefined && reconnectCount === 0
    ? { state: "connecting", label: "Connecting" }
    : { state: "reconnecting", label: "Reconnecting" };
}

function ConnectionPill() {
  const { node } = useConnection();
  const { state, label } = useLinkState();
  return (
    <div className="pill" data-state={state}>
      <span className="dot" aria-hidden="true" />
      <span role="status" data-testid="connection-state" data-state={state}>
        {label}
      </span>
      {node !== undefined && (
        <span className="pill-node" title="The node that holds this page’s socket">
          <span className="visually-hidden">, node </span>
          <span className="mono" data-testid="node-id">
            {node}
          </span>
        </span>
      )}
    </div>
  );
}
