// One log: its lines, and what can be done with them. Follows the end; scrolling up stops that, and nothing that is being read goes away.

import { useEffect, useMemo, useRef, useState } from "react";
import { Icon } from "../ui/Icon";
import { read, write } from "../ui/theme";
import { useToast } from "../ui/toast";
import { LogLines } from "./LogLines";
import { asText, LINES_MAX, type Line } from "./model";
import { QUERY_MAX, Search, step } from "./search";
import { type Log, useLog } from "./useLog";

interface Props {
  channel: string;
  /** What is watched, as a sentence ends: "the log of web". */
  what: string;
  /** The file's name when it is saved, without its end. */
  file: string;
  named?: boolean;
}

export function LogViewer({ channel, what, file, named = false }: Props) {
  const log = useLog(channel);
  const { view, model } = log;
  const [following, setFollowing] = useState(true);
  const [leftAt, setLeftAt] = useState(0);
  const [times, setTimes] = useSwitch("tideline.logs.times", () => matchMedia("(min-width: 768px)").matches);
  const [wrap, setWrap] = useSwitch("tideline.logs.wrap", () => true);
  const [query, setQuery] = useState("");
  const [filter, setFilter] = useState(false);
  const [current, setCurrent] = useState<{ seq: number } | null>(null);
  const search = useMemo(() => new Search(query), [query]);
  const matches = useMemo(
    () => (query === "" ? [] : view.lines.filter((line) => search.has(line))),
    [view.lines, search, query],
  );
  const shown = filter && query !== "" ? matches : view.lines;
  const field = useRef<HTMLInputElement>(null);

  const toEnd = () => {
    model.follow();
    setFollowing(true);
    setCurrent(null);
  };
  const leave = () => {
    if (!following) return;
    model.hold();
    setFollowing(false);
    setLeftAt(view.lines.at(-1)?.seq ?? 0);
  };
  const pause = () => {
    leave();
    model.pause();
  };
  const go = (by: 1 | -1) => {
    const line = step(matches, current?.seq ?? null, by);
    if (!line) return;
    leave();
    setCurrent({ seq: line.seq });
  };
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      field.current?.focus();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);

  const look = (text: string) => {
    setQuery(text);
    setCurrent(null);
    if (text === "") setFilter(false);
  };
  const fresh = following ? 0 : view.waiting + view.waitingDropped + countAfter(view.lines, leftAt);
  const place = current === null ? -1 : matches.findIndex(({ seq }) => seq === current.seq);
  return (
    <div className="log-viewer" data-testid="log-viewer" data-state={log.state}>
      {/* biome-ignore lint/a11y/useSemanticElements: a search element is not known to all browsers yet */}
      <div className="log-tools" role="search">
        <div className="log-find">
          <Icon name="search" size={17} />
          <input
            ref={field}
            type="text"
            inputMode="search"
            placeholder="Search"
            aria-label={`Search ${what}`}
            data-testid="log-search"
            maxLength={QUERY_MAX}
            autoComplete="off"
            spellCheck={false}
            value={query}
            onChange={(event) => look(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter") go(event.shiftKey ? -1 : 1);
              if (event.key === "Escape") look("");
            }}
          />
          {query !== "" && (
            <>
              <output className="tabular" data-testid="log-found">
                {place >= 0 ? `${(place + 1).toLocaleString()} of ` : ""}
                {matches.length.toLocaleString()}
                <span className="visually-hidden"> {matches.length === 1 ? "line" : "lines"} found</span>
              </output>
              <button
                type="button"
                className="icon-button small"
                aria-label="Previous match"
                title="Previous match (Shift+Enter)"
                disabled={matches.length === 0}
                onClick={() => go(-1)}
              >
                <Icon name="up" size={17} />
              </button>
              <button
                type="button"
                className="icon-button small"
                aria-label="Next match"
                title="Next match (Enter)"
                disabled={matches.length === 0}
                onClick={() => go(1)}
              >
                <Icon name="down" size={17} />
              </button>
              <Toggle on={filter} set={setFilter}>
                Only these
              </Toggle>
            </>
          )}
        </div>
        <div className="log-buttons">
          <Toggle on={times} set={setTimes}>
            Times
          </Toggle>
          <Toggle on={wrap} set={setWrap}>
            Wrap
          </Toggle>
          <Take lines={shown} what={what} file={file} />
          <button
            type="button"
            className={`button small log-pause${view.paused ? " primary" : ""}`}
            onClick={view.paused ? toEnd : pause}
          >
            <Icon name={view.paused ? "play" : "pause"} size={16} />
            {view.paused ? "Resume" : "Pause"}
          </button>
        </div>
      </div>
      <div className="log-frame">
        {shown.length === 0 ? (
          <Empty log={log} what={what} filtered={filter && query !== ""} />
        ) : (
          <LogLines
            lines={shown}
            search={search}
            current={current}
            label={what}
            times={times}
            wrap={wrap}
            named={named}
            following={following}
            onLeave={leave}
            onEnd={() => {
              if (!view.paused) toEnd();
            }}
          />
        )}
        {!following && !view.paused && (
          <button type="button" className="to-end log-end" onClick={toEnd}>
            <Icon name="down" size={16} />
            {fresh > 0 ? `${fresh.toLocaleString()} new ${fresh === 1 ? "line" : "lines"}` : "To the end"}
          </button>
        )}
      </div>
      <Foot log={log} following={following} />
    </div>
  );
}

function Toggle(props: { on: boolean; set: (on: boolean) => void; children: string }) {
  return (
    <button
      type="button"
      className="button small toggle"
      aria-pressed={props.on}
      onClick={() => props.set(!props.on)}
    >
      {props.children}
    </button>
  );
}

function Take({ lines, what, file }: { lines: readonly Line[]; what: string; file: string }) {
  const toast = useToast();
  const count = `${lines.length.toLocaleString()} ${lines.length === 1 ? "line" : "lines"}`;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(asText(lines));
      toast({ text: `Copied ${count}.` });
    } catch {
      toast({ text: "This browser does not let pages copy here. Saving works.", tone: "danger" });
    }
  };
  const save = () => {
    const url = URL.createObjectURL(new Blob([asText(lines)], { type: "text/plain" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `${file}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.log`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 0);
  };
  return (
    <>
      <button
        type="button"
        className="icon-button small"
        aria-label={`Copy ${what}`}
        title={`Copy ${count}`}
        disabled={lines.length === 0}
        onClick={() => void copy()}
      >
        <Icon name="copy" size={18} />
      </button>
      <button
        type="button"
        className="icon-button small"
        aria-label={`Save ${what} as a file`}
        title={`Save ${count}`}
        disabled={lines.length === 0}
        onClick={save}
      >
        <Icon name="download" size={18} />
      </button>
    </>
  );
}

function Empty({ log, what, filtered }: { log: Log; what: string; filtered: boolean }) {
  if (filtered) return <p className="log-empty">No line has that.</p>;
  switch (log.state) {
    case "refused":
      return (
        <p className="log-empty" role="alert">
          <strong>This can’t be watched</strong>
          {capital(what)}: {log.problem}.
        </p>
      );
    case "unavailable":
      return (
        <p className="log-empty" role="status">
          <strong>Not available for the moment</strong>
          The node answered: {log.problem}. Trying again.
        </p>
      );
    case "away":
      return (
        <p className="log-empty" role="status">
          <strong>No connection</strong>
          {capital(what)} is read when it is back.
        </p>
      );
    case "loading":
      return (
        <p className="log-empty" role="status">
          Reading {what}…
        </p>
      );
    case "live":
      return (
        <p className="log-empty" role="status">
          <strong>Nothing yet</strong>
          Watching {what}: what comes is shown here.
        </p>
      );
  }
}

/** What goes on, in one line under the log. */
function Foot({ log: { view, state, problem }, following }: { log: Log; following: boolean }) {
  const { lines, gone, paused, waiting, waitingDropped } = view;
  const told: Record<Log["state"], string> = {
    live: paused ? "Paused" : following ? "Following" : "Reading back",
    loading: "Reading",
    away: "Connection lost: what is missed is added when it is back",
    refused: `Ended: ${problem}`,
    unavailable: "Not available for the moment: trying again",
  };
  const parts = [
    `${lines.length.toLocaleString()} ${lines.length === 1 ? "line" : "lines"}`,
    gone > 0 ? `${gone.toLocaleString()} older ones gone, ${LINES_MAX.toLocaleString()} are kept here` : "",
    waiting > 0 ? `${waiting.toLocaleString()} wait` : "",
    waitingDropped > 0 ? `${waitingDropped.toLocaleString()} that waited had to go` : "",
  ];
  return (
    <p className="log-foot tabular" data-testid="log-foot" data-state={state} data-paused={paused}>
      <span className="dot" aria-hidden="true" />
      <span role="status">{told[state]}</span>
      <span>{parts.filter(Boolean).join(" · ")}</span>
    </p>
  );
}

function countAfter(lines: readonly Line[], seq: number): number {
  let n = 0;
  for (let i = lines.length - 1; i >= 0 && (lines[i]?.seq ?? 0) > seq; i--) n++;
  return n;
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** A choice that this browser remembers. */
function useSwitch(key: string, initial: () => boolean): [boolean, (on: boolean) => void] {
  const [on, set] = useState(() => {
    const stored = read(key);
    return stored === null ? initial() : stored === "on";
  });
  return [
    on,
    (next) => {
      set(next);
      write(key, next ? "on" : "off");
    },
  ];
}
