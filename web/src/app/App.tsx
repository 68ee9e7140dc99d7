// The page's frame: session first, then the socket, then the three panels.

import { TidelineProvider } from "@tideline/react";
import { lazy, Suspense, useCallback, useEffect, useState } from "react";
import { ChatPanel } from "./chat/ChatPanel";
import { EdgePanel } from "./edge/EdgePanel";
import { useMeter } from "./edge/telemetry";
import { Gate } from "./Gate";
import { Header } from "./Header";
import { Notice } from "./Notice";
import { type Session, SessionProvider, useSessionState } from "./session";
import { isTyping } from "./todos/keys";
import { TodoPanel } from "./todos/TodoPanel";
import { Failure } from "./ui/Failure";
import { Icon, type IconName } from "./ui/Icon";
import { ToastProvider } from "./ui/toast";

// Not part of the first load. They are fetched while the page idles, so that a tab from before a deploy needs nothing that is gone.
const link = () => import("./link/LinkDialog");
const help = () => import("./HelpDialog");
const LinkDialog = lazy(link);
const HelpDialog = lazy(help);
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

const VIEWS = ["todos", "chat", "edge"] as const;
type View = (typeof VIEWS)[number];
const TABS: Record<View, { label: string; icon: IconName }> = {
  todos: { label: "Todos", icon: "list" },
  chat: { label: "Chat", icon: "chat" },
  edge: { label: "Edge", icon: "pulse" },
};

function Shell({ session }: { session: Session }) {
  const view = useView();
  const meter = useMeter();
  const [linking, setLinking] = useState(false);
  const [unread, setUnread] = useState(0);
  const openLink = useCallback(() => setLinking(true), []);
  const [helping, setHelping] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => void Promise.allSettled([link(), help()]), SETTLED);
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
  }, []);
  return (
    <div className="shell" data-view={view}>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <Header user={session.user} onLink={openLink} />
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
      <nav className="tabs" aria-label="Panels">
        {VIEWS.map((name) => (
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

function useView(): View {
  const read = (): View => VIEWS.find((name) => `#${name}` === location.hash) ?? "todos";
  const [view, setView] = useState(read);
  // biome-ignore lint/correctness/useExhaustiveDependencies: read only looks at the location
  useEffect(() => {
    const changed = () => setView(read());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return view;
}
