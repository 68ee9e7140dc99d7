import { useConnection } from "@tideline/react";
import { useEffect, useState } from "react";
import { useSession } from "../session";
import { Avatar } from "../ui/Avatar";
import { Icon } from "../ui/Icon";
import { nameOf } from "../ui/name";
import { read, write } from "../ui/theme";
import { Composer } from "./Composer";
import { Messages } from "./Messages";
import { useRoom } from "./useRoom";

const SHIPPED = ["lobby", "harbour", "night-watch"];
const ROOMS_KEY = "tideline.rooms";
const ROOM_KEY = "tideline.room";
/** Rooms that this browser remembers beside the shipped ones. */
const ROOMS_MAX = 8;

export function ChatPanel({ visible, onUnread }: { visible: boolean; onUnread: (count: number) => void }) {
  const [rooms, setRooms] = useState(rememberedRooms);
  const [room, setRoom] = useState(() => {
    const last = read(ROOM_KEY);
    return last && rememberedRooms().includes(last) ? last : "lobby";
  });
  const open = (name: string) => {
    setRoom(name);
    write(ROOM_KEY, name);
    if (rooms.includes(name)) return;
    const added = [...rooms.filter((r) => !SHIPPED.includes(r)), name].slice(-ROOMS_MAX);
    write(ROOMS_KEY, added.join(" "));
    setRooms([...SHIPPED, ...added]);
  };
  return (
    <section className="panel chat" aria-labelledby="chat-title" data-panel="chat">
      <h2 id="chat-title" className="visually-hidden">
        Chat
      </h2>
      <RoomPicker room={room} rooms={rooms} onOpen={open} />
      <RoomView key={room} room={room} visible={visible} onUnread={onUnread} />
    </section>
  );
}

function RoomView(props: { room: string; visible: boolean; onUnread: (count: number) => void }) {
  const { user } = useSession();
  const { state } = useConnection();
  const [moves, setMoves] = useState<readonly Move[]>([]);
  const move = (kind: Move["kind"]) => (who: string) => {
    // Our own second tabs and reconnects are no news.
    if (who === user) return;
    setMoves((now) => [...now, { id: ++ids, kind, user: who, at: Date.now() }].slice(-MOVES));
  };
  const room = useRoom(props.room, { onJoin: move("joined"), onLeave: move("left") });
  return (
    <>
      <Presence users={room.presence.users} me={user} current={room.presence.isCurrent} />
      <Messages
        room={room}
        name={props.room}
        me={user}
        moves={moves}
        visible={props.visible}
        onUnread={props.onUnread}
      />
      <Composer
        room={props.room}
        connected={state === "connected" && room.isSubscribed}
        away={state === "connected" && room.error !== undefined}
        onSend={room.send}
      />
    </>
  );
}

export interface Move {
  id: number;
  kind: "joined" | "left";
  user: string;
  at: number;
}
const MOVES = 50;
let ids = 0;

function RoomPicker(props: { room: string; rooms: readonly string[]; onOpen: (room: string) => void }) {
  const [adding, setAdding] = useState(false);
  const [name, setName] = useState("");
  const clean = name.trim().toLowerCase().replace(/\s+/g, "-");
  const valid = /^[a-z0-9][a-z0-9-]{0,39}$/.test(clean);
  return (
    <div className="rooms">
      <ul aria-label="Rooms">
        {props.rooms.map((room) => (
          <li key={room}>
            <button
              type="button"
              className="room"
              ref={room === props.room ? intoView : undefined}
              aria-current={room === props.room ? "true" : undefined}
              onClick={() => props.onOpen(room)}
            >
              <span aria-hidden="true">#</span>
              {room}
            </button>
          </li>
        ))}
      </ul>
      {adding ? (
        <form
          className="room-add"
          onSubmit={(event) => {
            event.preventDefault();
            if (!valid) return;
            props.onOpen(clean);
            setName("");
            setAdding(false);
          }}
        >
          <label>
            <span className="visually-hidden">Room name: letters, digits and hyphens</span>
            <input
              // biome-ignore lint/a11y/noAutofocus: the field appears because the user asked for it
              autoFocus
              value={name}
              placeholder="room-name"
              maxLength={40}
              aria-invalid={name !== "" && !valid}
              onChange={(event) => setName(event.target.value)}
              onKeyDown={(event) => event.key === "Escape" && setAdding(false)}
              onBlur={() => name === "" && setAdding(false)}
            />
          </label>
        </form>
      ) : (
        <button
          type="button"
          className="icon-button small"
          aria-label="Open another room"
          title="Open another room"
          onClick={() => setAdding(true)}
        >
          <Icon name="plus" size={18} />
        </button>
      )}
    </div>
  );
}

/** The list of rooms scrolls sideways; the one that is open is in view. */
function intoView(button: HTMLElement | null): void {
  button?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

const FACES = 5;

function Presence({ users, me, current }: { users: readonly string[]; me: string; current: boolean }) {
  const others = users.filter((user) => user !== me);
  const here = users.includes(me) ? [me, ...others] : others;
  const [open, setOpen] = useState(false);
  useEffect(() => {
    if (!open) return;
    const close = (event: KeyboardEvent) => event.key === "Escape" && setOpen(false);
    window.addEventListener("keydown", close);
    return () => window.removeEventListener("keydown", close);
  }, [open]);
  return (
    <div className="presence" data-current={current}>
      <button
        type="button"
        className="presence-summary"
        aria-expanded={open}
        data-known={current || here.length > 0}
        onClick={() => setOpen((was) => !was)}
      >
        <span className="faces">
          {here.slice(0, FACES).map((user) => (
            <Avatar key={user} user={user} size="s" />
          ))}
        </span>
        <span className="tabular" data-testid="presence-count">
          {here.length} here
        </span>
      </button>
      {open && (
        <ul className="people" aria-label="People in this room">
          {here.map((user) => (
            <li key={user}>
              <Avatar user={user} size="s" />
              <span>{nameOf(user)}</span>
              {user === me && <span className="faint">you</span>}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function rememberedRooms(): string[] {
  const added = (read(ROOMS_KEY) ?? "").split(" ").filter((name) => name && !SHIPPED.includes(name));
  return [...SHIPPED, ...added.slice(-ROOMS_MAX)];
}
