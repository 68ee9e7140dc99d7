// Containers, their logs and events, and log groups of CloudWatch, for operators: what there is on the left, what was chosen on the right.

import { type FormEvent, useEffect, useState } from "react";
import { OperatorHead } from "../fleet/OperatorHead";
import { Icon } from "../ui/Icon";
import { read, write } from "../ui/theme";
import { LogViewer } from "./LogViewer";
import { channelOf, GROUP, hashOf, type Place } from "./places";
import { type Container, type Sources, useContainers, useSources } from "./useContainers";

/** How many log groups this browser remembers, and under which key. */
const GROUPS_MAX = 8;
const GROUPS_KEY = "tideline.logs.groups";
/** From this many containers on there is a field to narrow them down. */
const MANY = 8;

export default function LogsView({ place }: { place: Place }) {
  const sources = useSources();
  const docker = sources.data?.docker === true;
  const containers = useContainers(docker);
  const list = containers.data?.containers ?? [];
  return (
    <section className="logs" data-open={place.kind !== "none"} aria-labelledby="logs-title">
      <div className="logs-side">
        <OperatorHead id="logs-title" title="Logs" view="logs">
          {containers.data &&
            `${running(list)} of ${containers.data.total.toLocaleString()} containers running`}
        </OperatorHead>
        {sources.isError && (
          <p className="inline-problem" role="alert">
            What can be watched is not known: {messageOf(sources.error)}. Trying again.
          </p>
        )}
        {sources.isPending && (
          <p className="faint" role="status">
            Asking what can be watched…
          </p>
        )}
        {sources.data && (
          <>
            <h3>Containers</h3>
            {docker ? (
              <Containers query={containers} list={list} place={place} />
            ) : (
              <p className="faint logs-none" data-testid="no-docker">
                No Docker Engine: the nodes run without the setting <span className="mono">DOCKER_HOST</span>.
              </p>
            )}
            <Groups enabled={sources.data.groups} place={place} />
          </>
        )}
      </div>
      <div className="logs-main">
        {place.kind === "none" ? (
          <div className="log-empty">
            <Icon name="terminal" size={28} />
            <p>Choose a container or a log group.</p>
          </div>
        ) : (
          <Chosen key={channelOf(place)} place={place} list={list} sources={sources.data} />
        )}
      </div>
    </section>
  );
}

const running = (list: readonly Container[]): string =>
  list.filter(({ state }) => state === "running").length.toLocaleString();

function Containers(props: {
  query: ReturnType<typeof useContainers>;
  list: readonly Container[];
  place: Place;
}) {
  const { query, list, place } = props;
  const [text, setText] = useState("");
  const narrowed = list.filter(({ name, image }) =>
    `${name} ${image}`.toLowerCase().includes(text.toLowerCase()),
  );
  const total = query.data?.total ?? 0;
  return (
    <>
      {query.isError && (
        <p className="inline-problem" role="alert" data-testid="engine-away">
          The Docker Engine does not answer the nodes{detailOf(query.error)}. Trying again.
        </p>
      )}
      {query.isPending && !query.isError && (
        <p className="faint" role="status">
          Reading the list…
        </p>
      )}
      {list.length >= MANY && (
        <label className="logs-narrow">
          <Icon name="search" size={16} />
          <input
            type="text"
            placeholder="Name or image"
            aria-label="Narrow the containers down"
            value={text}
            onChange={(event) => setText(event.target.value)}
          />
        </label>
      )}
      {query.data && (
        <ul className="logs-list">
          <li>
            <a href={hashOf({ kind: "events" })} aria-current={place.kind === "events" ? "page" : undefined}>
              <Icon name="pulse" size={18} />
              <span className="logs-name">All events</span>
            </a>
          </li>
          {narrowed.map((container) => (
            <li key={container.id}>
              <Entry container={container} place={place} />
            </li>
          ))}
        </ul>
      )}
      {query.data && list.length === 0 && <p className="faint logs-none">There are no containers.</p>}
      {list.length > 0 && narrowed.length === 0 && (
        <p className="faint logs-none">None has that in its name or image.</p>
      )}
      {total > list.length && (
        <p className="faint logs-none">
          The first {list.length.toLocaleString()} of {total.toLocaleString()}; any other can be reached by
          its address, {hashOf({ kind: "container", name: "name", events: false })}.
        </p>
      )}
    </>
  );
}

function Entry({ container, place }: { container: Container; place: Place }) {
  const { name, image, state, status, ports = [] } = container;
  return (
    <a
      href={hashOf({ kind: "container", name, events: false })}
      data-testid="container"
      data-name={name}
      data-state={state}
      aria-current={place.kind === "container" && place.name === name ? "page" : undefined}
    >
      <span className="dot" data-state={state} aria-hidden="true" />
      <span className="logs-name">{name}</span>
      <span className="logs-status">{status || state}</span>
      <span className="logs-image mono">{image}</span>
      {ports.length > 0 && (
        <span className="logs-ports mono">
          <span className="visually-hidden">ports </span>
          {ports.join(", ")}
        </span>
      )}
    </a>
  );
}

function Groups({ enabled, place }: { enabled: boolean; place: Place }) {
  const [recent, setRecent] = useState(remembered);
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState(false);
  const opened = place.kind === "group" ? place.name : undefined;
  useEffect(() => {
    if (opened === undefined) return;
    setRecent((last) => {
      const next = last.includes(opened) ? last : [opened, ...last].slice(0, GROUPS_MAX);
      write(GROUPS_KEY, JSON.stringify(next));
      return next;
    });
  }, [opened]);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const name = text.trim();
    setWrong(!GROUP.test(name));
    if (!GROUP.test(name)) return;
    setText("");
    location.hash = hashOf({ kind: "group", name });
  };
  return (
    <>
      <h3>CloudWatch log groups</h3>
      {enabled ? (
        <>
          <form className="logs-group" onSubmit={submit} noValidate>
            <input
              type="text"
              placeholder="/aws/lambda/…"
              aria-label="Name of a log group"
              aria-invalid={wrong}
              aria-describedby={wrong ? "group-wrong" : undefined}
              data-testid="group-input"
              autoComplete="off"
              spellCheck={false}
              value={text}
              onChange={(event) => {
                setText(event.target.value);
                setWrong(false);
              }}
            />
            <button type="submit" className="button small" disabled={text.trim() === ""}>
              Watch
            </button>
          </form>
          {wrong && (
            <p className="field-error" id="group-wrong">
              A group’s name has letters, digits and _ / . - and at most 240 of them.
            </p>
          )}
          <ul className="logs-list">
            {recent.map((name) => (
              <li key={name}>
                <a href={hashOf({ kind: "group", name })} aria-current={opened === name ? "page" : undefined}>
                  <Icon name="cloud" size={18} />
                  <span className="logs-name mono">{name}</span>
                </a>
              </li>
            ))}
          </ul>
        </>
      ) : (
        <p className="faint logs-none" data-testid="no-groups">
          Not here: the nodes run without <span className="mono">LOG_GROUPS=on</span>.
        </p>
      )}
    </>
  );
}

function remembered(): string[] {
  try {
    const stored: unknown = JSON.parse(read(GROUPS_KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter((name) => typeof name === "string" && GROUP.test(name)) : [];
  } catch {
    return [];
  }
}

interface ChosenProps {
  place: Exclude<Place, { kind: "none" }>;
  list: readonly Container[];
  /** Undefined while it is not known. */
  sources: Sources | undefined;
}

function Chosen({ place, list, sources }: ChosenProps) {
  // Nobody refuses such a channel, and nothing would ever come.
  const missing = place.kind === "group" ? sources?.groups === false : sources?.docker === false;
  const container = place.kind === "container" ? list.find(({ name }) => name === place.name) : undefined;
  return (
    <>
      <div className="log-head">
        <a className="icon-button small logs-back" href={hashOf({ kind: "none" })} aria-label="All logs">
          <Icon name="back" />
        </a>
        <h2 className={place.kind === "group" ? "mono" : undefined}>
          {place.kind === "events" ? "All events" : place.name}
        </h2>
        {container && (
          <span className="node-state" data-state={container.state}>
            {container.state}
          </span>
        )}
        <span className="spring" />
        {place.kind === "container" && (
          <nav className="op-tabs" aria-label={`Of ${place.name}`}>
            {[false, true].map((events) => (
              <a
                key={String(events)}
                href={hashOf({ ...place, events })}
                aria-current={place.events === events ? "page" : undefined}
              >
                {events ? "Events" : "Log"}
              </a>
            ))}
          </nav>
        )}
      </div>
      {missing ? (
        <p className="log-empty" role="status">
          <strong>This can’t be watched here</strong>
          The nodes run without {place.kind === "group" ? "LOG_GROUPS=on" : "DOCKER_HOST"}.
        </p>
      ) : (
        <LogViewer
          channel={channelOf(place)}
          what={whatOf(place)}
          file={fileOf(place)}
          named={place.kind === "group"}
        />
      )}
    </>
  );
}

function whatOf(place: Exclude<Place, { kind: "none" }>): string {
  switch (place.kind) {
    case "container":
      return `the ${place.events ? "events" : "log"} of ${place.name}`;
    case "events":
      return "the events of all containers";
    case "group":
      return `log group ${place.name}`;
  }
}

const fileOf = (place: Exclude<Place, { kind: "none" }>): string =>
  channelOf(place)
    .replaceAll(/[^a-zA-Z0-9_.-]+/g, "-")
    .replaceAll(/^-+|-+$/g, "");

/** Error 100 says no more than that it failed. */
const detailOf = (error: unknown): string =>
  (error as { code?: number } | null)?.code === 100 ? "" : ` (${messageOf(error)})`;

function messageOf(error: unknown): string {
  if (typeof error === "object" && error !== null && "message" in error) return String(error.message);
  return String(error);
}
