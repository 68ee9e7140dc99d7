// The page's frame: session first, then the socket, then the three panels.

import { TidelineProvider } from "@tideline/react";
import { type MouseEvent, Suspense, useCallback, useEffect, useState } from "react";
import { ChatPanel } from "./chat/ChatPanel";
import { EdgePanel } from "./edge/EdgePanel";
import { useMeter } from "./edge/telemetry";
import { Gate } from "./Gate";
import { Header } from "./Header";
import { placeOf } from "./logs/places";
import { Notice } from "./Notice";
import { OperatorsOnly } from "./OperatorsOnly";
import { type Session, SessionProvider, useSessionState } from "./session";
import { isTyping } from "./todos/keys";
import { TodoPanel } from "./todos/TodoPanel";
import { Failure } from "./ui/Failure";
import { Icon, type IconName } from "./ui/Icon";
import { later } from "./ui/later";
import { ToastProvider } from "./ui/toast";

// Not part of the first load. They are fetched while the page idles, so that a tab from before a deploy needs nothing that is gone.
const link = () => import("./link/LinkDialog");
const help = () => import("./HelpDialog");
const fleet = () => import("./fleet/FleetView");
const logs = () => import("./logs/LogsView");
const FleetView = later(fleet);
const LogsView = later(logs);
const LinkDialog = later(link);
const HelpDialog = later(help);
/** When the rest of the code is fetched, milliseconds after the start. */
const SETTLED = 3_000;

export function App() {
  const state = useSessionState();
  if (state.status !== "ready") return <Gate state={state} />;
  const { session } = state;
  return (
    <SessionProvider session={session} key={session.user}>
      <TidelineProvider url="/connection/websocket" getToken={session.getToken} name="tideline-web">
        <ToastProvider>
          <Shell session={session} />
        </ToastProvider>
      </TidelineProvider>
    </SessionProvider>
  );
}

const TABBED = ["todos", "chat", "edge"] as const;
/** Operators only. Their addresses may go on behind a slash. */
const OPERATED = ["nodes", "logs"] as const;
const VIEWS = [...TABBED, ...OPERATED] as const;
type View = (typeof VIEWS)[number];
const TABS: Record<(typeof TABBED)[number], { label: string; icon: IconName }> = {
  todos: { label: "Todos", icon: "list" },
  chat: { label: "Chat", icon: "chat" },
  edge: { label: "Edge", icon: "pulse" },
};

function Shell({ session }: { session: Session }) {
  const isOperator = session.roles.includes("operator");
  const { view, hash } = useView();
  const meter = useMeter();
  const [linking, setLinking] = useState(false);
  const [unread, setUnread] = useState(0);
  const openLink = useCallback(() => setLinking(true), []);
  const [helping, setHelping] = useState(false);
  useEffect(() => {
    const timer = setTimeout(
      () => void Promise.allSettled([link(), help(), ...(isOperator ? [fleet(), logs()] : [])]),
      SETTLED,
    );
    const press = (event: KeyboardEvent) => {
      if (isTyping(event.target) || event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.key === "?") setHelping(true);
      if (event.key !== "c") return;
      event.preventDefault();
      location.hash = "#chat";
      requestAnimationFrame(() => document.querySelector<HTMLElement>(".composer textarea")?.focus());
    };
    window.addEventListener("keydown", press);
    return () => {
      clearTimeout(timer);
      window.removeEventListener("keydown", press);
    };
  }, [isOperator]);
  return (
    <div className="shell" data-view={view}>
      {/* biome-ignore lint/a11y/useValidAnchor: it goes to a place on this page, but must leave the address as it is */}
      <a className="skip" href="#main" onClick={skip}>
        Skip to content
      </a>
      <Header user={session.user} isOperator={isOperator} onLink={openLink} />
      <Notice />
      <main id="main" className="panels" tabIndex={-1}>
        <Failure what="The todo list">
          <TodoPanel />
        </Failure>
        <div className="side">
          <Failure what="The chat">
            <ChatPanel visible={view === "chat"} onUnread={setUnread} />
          </Failure>
          <Failure what="The edge panel">
            <EdgePanel meter={meter} user={session.user} onLink={openLink} />
          </Failure>
        </div>
      </main>
      {(view === "nodes" || view === "logs") && (
        <main className="operated" tabIndex={-1}>
          {isOperator ? (
            <Failure what={view === "nodes" ? "The list of nodes" : "The view of logs"} key={view}>
              <Suspense fallback={<p className="operated-wait">Loading…</p>}>
                {view === "nodes" ? <FleetView /> : <LogsView place={placeOf(hash)} />}
              </Suspense>
            </Failure>
          ) : (
            <OperatorsOnly what={view} />
          )}
        </main>
      )}
      <nav className="tabs" aria-label="Panels">
        {TABBED.map((name) => (
          <a key={name} href={`#${name}`} data-tab={name} aria-current={view === name ? "page" : undefined}>
            <Icon name={TABS[name].icon} />
            <span>{TABS[name].label}</span>
            {name === "chat" && unread > 0 && (
              <span className="badge">
                {unread}
                <span className="visually-hidden"> unread</span>
              </span>
            )}
          </a>
        ))}
      </nav>
      <Failure what="The dialog">
        <Suspense fallback={null}>
          {linking && <LinkDialog onClose={() => setLinking(false)} />}
          {helping && <HelpDialog onClose={() => setHelping(false)} />}
        </Suspense>
      </Failure>
    </div>
  );
}

/** Moves the focus past the header; the address stays, since it names the view. */
function skip(event: MouseEvent): void {
  event.preventDefault();
  const mains = [...document.querySelectorAll<HTMLElement>("main")];
  mains.find((main) => main.offsetParent !== null)?.focus();
}

/** The panel or view that the address names, and the address. */
function useView(): { view: View; hash: string } {
  const [hash, setHash] = useState(() => location.hash);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  const named = hash.slice(1);
  const view =
    VIEWS.find((name) => name === named) ?? OPERATED.find((name) => named.startsWith(`${name}/`)) ?? "todos";
  return { view, hash };
}
