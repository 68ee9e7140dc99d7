// One log channel: history first, then what is published, through interruptions; and how that goes.

import { useChannel, useConnection, useTideline } from "@tideline/react";
import { useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { LogModel, type LogView } from "./model";

/** How many publications of history are asked for: all that the namespace keeps. The node answers with what fits. */
const PAGE = 200;
/** Everybody who watches is told of a lost continuity at the same moment: the wait before history is read, at most, milliseconds. */
const JITTER = 2_000;

export type LogState =
  /** No socket. */
  | "away"
  /** Subscribing, or reading what there is. */
  | "loading"
  | "live"
  /** For good: this role may not, or there can be nothing of this name. */
  | "refused"
  /** The node can't for the moment; the client tries again. */
  | "unavailable";

export interface Log {
  view: LogView;
  model: LogModel;
  state: LogState;
  /** What the node says, when refused or unavailable. */
  problem?: string;
}

export function useLog(channel: string): Log {
  const connection = useTideline();
  const { isConnected } = useConnection();
  // biome-ignore lint/correctness/useExhaustiveDependencies: each channel has its own
  const model = useMemo(() => new LogModel(), [channel]);
  const view = useSyncExternalStore(model.watch, model.view);
  const turn = useRef(0);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const read = useRef<"not yet" | "done">("not yet");

  const history = async (within = 0) => {
    const mine = ++turn.current;
    clearTimeout(timer.current);
    model.reading();
    if (within > 0)
      await new Promise((done) => {
        timer.current = setTimeout(done, Math.random() * within);
      });
    try {
      const page = await connection.channel(channel).history({ limit: PAGE, reverse: true });
      if (mine !== turn.current) return;
      read.current = "done";
      model.history(page);
    } catch {
      if (mine !== turn.current) return;
      read.current = "done";
      model.history(null);
    }
  };
  const latest = useRef(history);
  latest.current = history;

  const { state, error } = useChannel(channel, {
    onPublication: (publication) => model.publication(publication),
    onSubscribed: ({ fresh }) => {
      if (fresh) void history();
    },
    onResync: () => void history(JITTER),
  });
  useEffect(() => {
    read.current = "not yet";
    // Another component has subscribed already: the channel says nothing more about it.
    if (connection.channel(channel).snapshot().state === "subscribed") void latest.current();
    return () => {
      turn.current++;
      clearTimeout(timer.current);
    };
  }, [connection, channel]);

  let now: LogState = "live";
  if (error && state === "unsubscribed") now = "refused";
  else if (!isConnected) now = "away";
  else if (state !== "subscribed") now = error ? "unavailable" : "loading";
  else if (read.current === "not yet" && view.lines.length === 0) now = "loading";
  return { view, model, state: now, ...(error ? { problem: reason(error) } : {}) };
}

function reason({ code, message }: { code: number; message: string }): string {
  switch (code) {
    case 102:
      return "this deployment has no such channels";
    case 103:
      return "your role may not watch it";
    case 107:
      return "nothing can have this name";
    default:
      return message;
  }
}
