// A live room in 30 lines: messages, who is here, what was missed.
import { TidelineProvider, useChannel, useConnection, usePresence } from "@tideline/react";
import { useState } from "react";

type Message = { id: string; user: string; data: { text: string } };

const getToken = async () => {
  const answer = await fetch("/api/session/token", { method: "POST" });
  if (!answer.ok) throw new Error(`no token: ${answer.status}`);
  return (await answer.json()).token as string;
};

function Room({ channel }: { channel: string }) {
  const [messages, setMessages] = useState<Message[]>([]);
  const [note, setNote] = useState("");
  const { node, isConnected, rpc } = useConnection();
  const { users } = usePresence(channel);
  useChannel<Message>(channel, {
    onPublication: ({ data }) => setMessages((now) => [...now, data]),
    onRecovered: (count) => setNote(`caught up, ${count} messages`),
    onResync: () => setNote("too far behind: reload the history"),
  });
  const send = (text: string) => rpc("publish", { channel, id: crypto.randomUUID(), data: { text } });
  return (
    <section>
      <p>
        {isConnected ? `on ${node}, ${users.length} here` : "reconnecting"} {note}
      </p>
      <ul>
        {messages.map((m) => (
          <li key={m.id}>
            {m.user}: {m.data.text}
          </li>
        ))}
      </ul>
      <button type="button" onClick={() => send("hello")}>
        Say hello
      </button>
    </section>
  );
}

export const App = () => (
  <TidelineProvider url="/connection/websocket" getToken={getToken}>
    <Room channel="chat:lobby" />
  </TidelineProvider>
);
