// The page's frame: session first, then the socket, then the three panels.

import { TidelineProvider } from "@tideline/react";
import { useCallback, useEffect, useState } from "react";
import { ChatPanel } from "./chat/ChatPanel";
import { EdgePanel } from "./edge/EdgePanel";
import { useMeter } from "./edge/telemetry";
import { Gate } from "./Gate";
import { Header } from "./Header";
import { LinkDialog } from "./link/LinkDialog";
import { Notice } from "./Notice";
import { type Session, SessionProvider, useSessionState } from "./session";
import { TodoPanel } from "./todos/TodoPanel";
import { Icon, type IconName } from "./ui/Icon";
import { ToastProvider } from "./ui/toast";

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
  return (
    <div className="shell" data-view={view}>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <Header user={session.user} onLink={openLink} />
      <Notice />
      <main id="main" className="panels" tabIndex={-1}>
        <TodoPanel />
        <div className="side">
          <ChatPanel visible={view === "chat"} onUnread={setUnread} />
          <EdgePanel meter={meter} user={session.user} onLink={openLink} />
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
      {linking && <LinkDialog onClose={() => setLinking(false)} />}
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
