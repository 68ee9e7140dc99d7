// One chat room: history paged backwards, live messages, sending with an id so that a retry publishes once.

import { type UsePresence, useChannel, useConnection, usePresence } from "@tideline/react";
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { uuid } from "../ids";
import { useSession } from "../session";
import { type Line, RoomModel } from "./model";

const PAGE = 50;
/** The longest message, characters. */
export const TEXT_MAX = 2000;

export interface Room {
  lines: readonly Line[];
  /** Reading the newest page, for the first time. */
  isLoading: boolean;
  isSubscribed: boolean;
  /** There is a socket to send over. Without one nothing is taken: what waits unseen may go out when nobody expects it. */
  isConnected: boolean;
  /** The last subscribe failed; `isRefused` for good, otherwise it is tried again. */
  error?: string;
  isRefused?: boolean;
  /** Older messages exist. */
  hasOlder: boolean;
  /** Reads one page more. Does nothing while one is being read. */
  loadOlder: () => Promise<void>;
  presence: UsePresence;
  send: (text: string) => void;
  retry: (id: string) => void;
  discard: (id: string) => void;
}

export interface RoomEvents {
  onJoin?: (user: string) => void;
  onLeave?: (user: string) => void;
}

const models = new Map<string, RoomModel>();
function modelOf(key: string): RoomModel {
  let model = models.get(key);
  if (!model) {
    model = new RoomModel();
    models.set(key, model);
  }
  return model;
}

export function useRoom(room: string, events: RoomEvents = {}): Room {
  const { user } = useSession();
  const { rpc, isConnected } = useConnection();
  const name = `chat:${room}`;
  const model = modelOf(`${user} ${name}`);
  const lines = useSyncExternalStore(model.watch, model.view);
  const [isLoading, setLoading] = useState(lines.length === 0);
  const [hasOlder, setOlder] = useState(false);
  const reading = useRef(false);

  const newest = async () => {
    try {
      const page = await channel.history({ limit: PAGE, reverse: true });
      model.newest(page);
      setOlder(page.publications.length === PAGE);
    } catch {
      // Refused or lost: what arrives from here on is shown all the same, and the next subscribe reads again.
    } finally {
      setLoading(false);
    }
  };
  const channel = useChannel(name, {
    onPublication: (publication) => {
      model.learn([publication]);
    },
    onSubscribed: ({ fresh }) => {
      if (fresh) void newest();
    },
    onResync: () => {
      model.reset();
      // A random wait: everybody in the room was told at the same moment.
      setTimeout(() => void newest(), Math.random() * 2_000);
    },
  });
  const presence = usePresence(name, {
    onJoin: (info) => events.onJoin?.(info.user),
    onLeave: (info) => events.onLeave?.(info.user),
  });

  const loadOlder = async () => {
    const since = model.place();
    if (reading.current || !since) return;
    reading.current = true;
    try {
      const page = await channel.history({ limit: PAGE, reverse: true, since });
      model.learn(page.publications);
      setOlder(page.publications.length === PAGE);
    } catch {
      // Scrolling up again asks again.
    } finally {
      reading.current = false;
    }
  };

  const submit = useCallback(
    async (id: string, text: string) => {
      model.sending({ id, user, text, at: Date.now() });
      try {
        await rpc("publish", { channel: name, data: { text }, id });
        // The publication itself ends the sending; it may come before or after this answer.
        setTimeout(() => {
          if (model.view().some((line) => line.id === id && line.status === "sending")) {
            model.failed(id, "Accepted, but it has not come back yet.");
          }
        }, 10_000);
      } catch (error) {
        model.failed(id, reason(error));
      }
    },
    [model, name, rpc, user],
  );
  useEffect(() => {
    setLoading(model.view().length === 0);
  }, [model]);

  return {
    lines,
    isLoading,
    isSubscribed: channel.isSubscribed,
    isConnected,
    ...(channel.error ? { error: channel.error.message, isRefused: channel.state === "unsubscribed" } : {}),
    hasOlder,
    loadOlder,
    presence,
    send: (text) => void submit(uuid(), text),
    retry: (id) => {
      const line = model.view().find((l) => l.id === id);
      if (line) void submit(id, line.text);
    },
    discard: (id) => model.discard(id),
  };
}

/** What a refusal of the node, or the client's own report of a lost call, means to a person. */
function reason(error: unknown): string {
  const { code, message } = (typeof error === "object" && error !== null ? error : {}) as Partial<{
    code: number;
    message: string;
  }>;
  switch (code) {
    case 1:
      return "no answer in time";
    case 2:
    case 3:
    case 11:
      return "the connection was lost";
    case 100:
      return "the chat is not available";
    case 103:
      return "you may not write here";
    case 111:
      return "too many messages at once";
    default:
      return message ?? "unknown reason";
  }
}
