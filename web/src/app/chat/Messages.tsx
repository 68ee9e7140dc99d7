import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { Avatar } from "../ui/Avatar";
import { Icon } from "../ui/Icon";
import { nameOf } from "../ui/name";
import { read, write } from "../ui/theme";
import { formatClock, formatDay, formatFull } from "../ui/time";
import type { Move } from "./ChatPanel";
import type { Line } from "./model";
import type { Room } from "./useRoom";

/** Messages of one person within this time share a head, milliseconds. */
const TOGETHER = 5 * 60_000;
/** Closer to an end than this counts as being there, px. */
const NEAR = 80;

interface MessagesProps {
  room: Room;
  name: string;
  me: string;
  moves: readonly Move[];
  visible: boolean;
  onUnread: (count: number) => void;
}

export function Messages({ room, name, me, moves, visible, onUnread }: MessagesProps) {
  const scroller = useRef<HTMLElement>(null);
  const [atEnd, setAtEnd] = useState(true);
  const { lines } = room;
  const reading = useReading(name, lines, atEnd, visible);
  const rows = useMemo(() => layOut(lines, moves, reading.divider), [lines, moves, reading.divider]);
  const unread = useMemo(
    () =>
      lines.filter((line) => (line.offset ?? 0) > reading.read && line.user !== me && line.status === "sent")
        .length,
    [lines, reading.read, me],
  );
  useEffect(() => onUnread(unread), [unread, onUnread]);

  // Stay at the end while there; keep the place when older messages are put above it.
  const first = lines[0]?.id;
  const before = useRef({ first, height: 0 });
  // biome-ignore lint/correctness/useExhaustiveDependencies: after every change of the rows
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    if (atEnd) box.scrollTop = box.scrollHeight;
    else if (before.current.first !== first) box.scrollTop += box.scrollHeight - before.current.height;
    before.current = { first, height: box.scrollHeight };
  }, [rows]);
  useEffect(() => {
    const box = scroller.current;
    if (!box) return;
    // The box changes its height with the composer, the keyboard of a phone, and when its tab is shown.
    const watch = new ResizeObserver(() => {
      if (atEnd) box.scrollTop = box.scrollHeight;
    });
    watch.observe(box);
    return () => watch.disconnect();
  }, [atEnd]);

  const scrolled = () => {
    const box = scroller.current;
    if (!box || box.clientHeight === 0) return;
    setAtEnd(box.scrollHeight - box.scrollTop - box.clientHeight < NEAR);
    if (box.scrollTop < NEAR && room.hasOlder) void room.loadOlder();
  };
  const toEnd = () => {
    setAtEnd(true);
    scroller.current?.scrollTo({ top: scroller.current.scrollHeight });
  };

  return (
    <div className="messages-frame">
      <section
        className="messages"
        ref={scroller}
        onScroll={scrolled}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region must be reachable by keyboard
        tabIndex={0}
        aria-label={`Messages in ${name}`}
      >
        {room.isLoading ? (
          <p className="messages-note" role="status">
            {room.error === undefined
              ? "Reading the room…"
              : room.isRefused
                ? `This room can’t be opened: ${room.error}.`
                : "The chat is not available for the moment. Trying again."}
          </p>
        ) : lines.length === 0 ? (
          <div className="messages-note">
            <p>Nobody has said anything in #{name} yet.</p>
          </div>
        ) : (
          !room.hasOlder && <p className="messages-note">This is where #{name} begins.</p>
        )}
        <ol aria-live="polite" aria-relevant="additions">
          {rows.map((row) => (
            <Row key={row.key} row={row} me={me} room={room} />
          ))}
        </ol>
      </section>
      {!atEnd && (
        <button type="button" className="to-end" onClick={toEnd}>
          <Icon name="down" size={16} />
          {unread > 0 ? `${unread} new` : "Latest"}
        </button>
      )}
    </div>
  );
}

type RowData =
  | { key: string; kind: "day"; text: string }
  | { key: string; kind: "unread" }
  | { key: string; kind: "move"; move: Move }
  | { key: string; kind: "line"; line: Line; head: boolean };

function Row({ row, me, room }: { row: RowData; me: string; room: Room }) {
  if (row.kind === "day")
    return (
      <li className="divider">
        <span>{row.text}</span>
      </li>
    );
  if (row.kind === "unread")
    return (
      <li className="divider unread">
        <span>New</span>
      </li>
    );
  if (row.kind === "move")
    return (
      <li className="move">
        {nameOf(row.move.user)} {row.move.kind} · {formatClock(row.move.at)}
      </li>
    );
  const { line, head } = row;
  return (
    <li
      className="message"
      data-testid="chat-message"
      data-status={line.status}
      data-mine={line.user === me}
      data-head={head}
    >
      {head ? <Avatar user={line.user} /> : <span className="avatar-space" />}
      <div className="message-body">
        {head && (
          <p className="message-head">
            <strong>{line.user === me ? "You" : nameOf(line.user)}</strong>
            <time dateTime={new Date(line.at).toISOString()}>{formatClock(line.at)}</time>
          </p>
        )}
        <p className="message-text">{line.text}</p>
        {line.status === "failed" && (
          <p className="message-failed" role="alert">
            <span>Not sent: {line.problem}</span>
            <button
              type="button"
              className="link"
              disabled={!room.isConnected}
              onClick={() => room.retry(line.id)}
            >
              Try again
            </button>
            <button type="button" className="link" onClick={() => room.discard(line.id)}>
              Discard
            </button>
          </p>
        )}
      </div>
      <span className="message-meta" title={formatFull(line.at)}>
        {line.status === "sending" ? (
          "Sending…"
        ) : (
          <>
            {!head && <span>{formatClock(line.at)}</span>}
            {line.node && <span className="mono">via {line.node}</span>}
          </>
        )}
      </span>
    </li>
  );
}

function layOut(lines: readonly Line[], moves: readonly Move[], divider: number | null): RowData[] {
  const rows: RowData[] = [];
  let last: Line | undefined;
  let next = 0;
  let marked = false;
  const movesUntil = (at: number) => {
    for (let move = moves[next]; move && move.at <= at; move = moves[++next]) {
      rows.push({ key: `m${move.id}`, kind: "move", move });
      last = undefined;
    }
  };
  let day = "";
  for (const line of lines) {
    movesUntil(line.at);
    const today = formatDay(line.at);
    if (today !== day) {
      rows.push({ key: `d${line.id}`, kind: "day", text: today });
      day = today;
      last = undefined;
    }
    if (!marked && divider !== null && (line.offset ?? 0) > divider) {
      rows.push({ key: "unread", kind: "unread" });
      marked = true;
      last = undefined;
    }
    const head = last?.user !== line.user || line.at - (last?.at ?? 0) > TOGETHER;
    rows.push({ key: line.id, kind: "line", line, head });
    last = line;
  }
  movesUntil(Number.POSITIVE_INFINITY);
  return rows;
}

/** Up to which offset the room was read, kept in this browser; and where the divider stands, which does not move while looked at. */
function useReading(room: string, lines: readonly Line[], atEnd: boolean, visible: boolean) {
  const key = `tideline.read.${room}`;
  const [readTo, setRead] = useState<number | null>(() => {
    const stored = Number(read(key));
    return stored > 0 ? stored : null;
  });
  const [divider, setDivider] = useState<number | null>(readTo);
  const looking = useLooking(visible);
  const top = lines.findLast((line) => line.offset !== undefined)?.offset;

  useEffect(() => {
    if (top === undefined || !looking || !atEnd || top === readTo) return;
    setRead(top);
    write(key, String(top));
  }, [top, looking, atEnd, readTo, key]);
  // Coming back to unread messages sets the divider anew; what arrives while one looks does not need it.
  const was = useRef(looking);
  useEffect(() => {
    if (looking && !was.current) setDivider(readTo);
    was.current = looking;
  }, [looking, readTo]);
  return {
    read: readTo ?? top ?? 0,
    divider: divider !== null && top !== undefined && divider > top ? null : divider,
  };
}

/** Whether the user can see the room: the window is visible and focused, and the panel is not behind another. */
function useLooking(visible: boolean): boolean {
  const [focused, setFocused] = useState(() => document.hasFocus());
  useEffect(() => {
    const update = () => setFocused(document.visibilityState === "visible" && document.hasFocus());
    window.addEventListener("focus", update);
    window.addEventListener("blur", update);
    document.addEventListener("visibilitychange", update);
    return () => {
      window.removeEventListener("focus", update);
      window.removeEventListener("blur", update);
      document.removeEventListener("visibilitychange", update);
    };
  }, []);
  return focused && (visible || matchMedia("(min-width: 1200px)").matches);
}
