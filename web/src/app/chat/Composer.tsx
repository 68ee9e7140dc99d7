import { type FormEvent, type KeyboardEvent, useLayoutEffect, useRef, useState } from "react";
import { Icon } from "../ui/Icon";
import { TEXT_MAX } from "./useRoom";

// What was typed in a room and not sent, while the page lives: switching rooms must not lose it.
const drafts = new Map<string, string>();

export function Composer(props: {
  room: string;
  connected: boolean;
  /** There is a connection, and yet the room does not answer. */
  away: boolean;
  onSend: (text: string) => void;
}) {
  const [text, setText] = useState(drafts.get(props.room) ?? "");
  const area = useRef<HTMLTextAreaElement>(null);
  const over = text.trim().length - TEXT_MAX;
  const ready = props.connected && text.trim() !== "" && over <= 0;

  const change = (next: string) => {
    setText(next);
    if (next === "") drafts.delete(props.room);
    else drafts.set(props.room, next);
  };
  const submit = (event?: FormEvent) => {
    event?.preventDefault();
    if (!ready) return;
    props.onSend(text.trim());
    change("");
  };
  const press = (event: KeyboardEvent) => {
    if (event.key === "Escape") area.current?.blur();
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit();
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: the height follows the text
  useLayoutEffect(() => {
    if (!area.current) return;
    area.current.style.height = "auto";
    area.current.style.height = `${Math.min(area.current.scrollHeight, 140)}px`;
  }, [text]);

  return (
    <form className="composer" onSubmit={submit}>
      <label className="composer-field">
        <span className="visually-hidden">Message to {props.room}</span>
        <textarea
          ref={area}
          rows={1}
          data-testid="chat-input"
          placeholder={
            props.connected
              ? `Message #${props.room}`
              : props.away
                ? "Not available for the moment"
                : "Waiting for the connection…"
          }
          value={text}
          aria-invalid={over > 0}
          onChange={(event) => change(event.target.value)}
          onKeyDown={press}
        />
      </label>
      <button type="submit" className="send" aria-label="Send" disabled={!ready}>
        <Icon name="send" />
      </button>
      {over > 0 && (
        <p className="field-error" role="alert">
          {over} too long: a message has at most {TEXT_MAX} characters.
        </p>
      )}
    </form>
  );
}
