// What this page's connection is doing: where its socket is, what arrived and how fast, and how each interruption ended.

import { useConnection } from "@tideline/react";
import { Suspense, useEffect, useState } from "react";
import { asProblem, useSession } from "../session";
import { Icon } from "../ui/Icon";
import { later } from "../ui/later";
import { nameOf } from "../ui/name";
import { formatMs, formatSeconds } from "../ui/time";
import { useToast } from "../ui/toast";
import { useOnline } from "../ui/useOnline";
import { type Meter, type Note, type Telemetry, useTelemetry } from "./telemetry";

const LatencyChart = later(() => import("./LatencyChart"));

/** How long a dropped connection stays away, milliseconds: long enough to miss something. */
const AWAY = 5_000;

export function EdgePanel({ meter, user, onLink }: { meter: Meter; user: string; onLink: () => void }) {
  const telemetry = useTelemetry(meter);
  const connection = useConnection();
  const [drawn, setDrawn] = useState(false);
  useEffect(() => {
    // The chart's code is fetched once everything else is there.
    const timer = setTimeout(() => setDrawn(true), 600);
    return () => clearTimeout(timer);
  }, []);
  const median = percentile(telemetry, 0.5);
  return (
    <section className="panel edge" aria-labelledby="edge-title" data-panel="edge">
      <div className="panel-head">
        <h2 id="edge-title">Edge</h2>
        <p className="faint">Your connection, live</p>
      </div>
      <Socket meter={meter} />
      <dl className="stats">
        <Stat name="Round trip" value={formatMs(telemetry.rtt)} />
        <Stat
          name="Publish to here"
          value={formatMs(median)}
          hint="Median of the publications on the chart"
        />
        <Stat
          name="Slowest 1%"
          value={formatMs(percentile(telemetry, 0.99))}
          hint="Of the publications on the chart"
        />
        <Stat name="Received" value={telemetry.received.toLocaleString()} />
        <Stat
          name="Replayed"
          value={telemetry.replayed.toLocaleString()}
          hint="Missed while away, and delivered on return"
        />
        <Stat name="Reconnects" value={connection.reconnectCount.toLocaleString()} />
      </dl>
      <div className="chart-card">
        <h3>Latency</h3>
        <div className="chart">
          {drawn && (
            <Suspense fallback={null}>
              <LatencyChart telemetry={telemetry} />
            </Suspense>
          )}
        </div>
        <p className="legend">
          <span data-series="publish">publish to receive</span>
          <span data-series="trip">round trip</span>
        </p>
      </div>
      <History telemetry={telemetry} />
      <div className="identity">
        <h3>You</h3>
        <p>
          {nameOf(user)}
          <span className="mono faint" data-testid="user-id">
            {user}
          </span>
        </p>
        <button type="button" className="button small" onClick={onLink}>
          <Icon name="devices" size={18} />
          Open on another device
        </button>
      </div>
    </section>
  );
}

function Socket({ meter }: { meter: Meter }) {
  const connection = useConnection();
  const { api } = useSession();
  const toast = useToast();
  const { state, node, previousNode, resumesAt, reconnectCount } = connection;
  const wait = useCountdown(resumesAt);
  const online = useOnline();
  const drop = () => {
    meter.expectClose();
    connection.reconnect(AWAY);
  };
  const move = async () => {
    try {
      // The next connection goes wherever the balancer likes; `socket-note` says where that was.
      await api("/api/session/node", { method: "DELETE" });
      meter.expectClose();
      connection.reconnect(300);
    } catch (error) {
      const problem = asProblem(error);
      toast({
        text:
          problem.status === 404 || problem.status === 405
            ? "This deployment does not let a browser choose again."
            : `Not moved. ${problem.message}`,
        tone: "danger",
      });
    }
  };
  return (
    <div className="socket" data-state={state}>
      <p className="socket-label">{state === "connected" ? "Socket held by" : "Socket was held by"}</p>
      <p className="socket-node mono">{node ?? "no node yet"}</p>
      <p className="socket-note" role="status">
        {resumesAt !== undefined
          ? `Dropped on purpose. Back in ${wait} s; what you miss will be replayed.`
          : state !== "connected"
            ? online
              ? "Looking for a node…"
              : "Waiting for the network"
            : reconnectCount === 0
              ? "First connection of this page"
              : previousNode === node
                ? "The last reconnect came back to the same node"
                : `Moved here from ${previousNode ?? "another node"}`}
      </p>
      <div className="row">
        {resumesAt !== undefined ? (
          <button type="button" className="button small" onClick={connection.connect}>
            <Icon name="retry" size={18} />
            Connect now
          </button>
        ) : (
          <button type="button" className="button small" disabled={state !== "connected"} onClick={drop}>
            <Icon name="unplug" size={18} />
            Drop for {AWAY / 1000} s
          </button>
        )}
        <button
          type="button"
          className="button small"
          disabled={state !== "connected"}
          onClick={() => void move()}
        >
          <Icon name="shuffle" size={18} />
          Another node
        </button>
      </div>
    </div>
  );
}

function Stat({ name, value, hint }: { name: string; value: string; hint?: string }) {
  return (
    <div className="stat" title={hint}>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

const SHOWN = 12;

function History({ telemetry }: { telemetry: Telemetry }) {
  return (
    <div className="history">
      <h3>What happened</h3>
      {telemetry.log.length === 0 ? (
        <p className="faint">Nothing yet.</p>
      ) : (
        <ol aria-live="polite">
          {telemetry.log.slice(0, SHOWN).map((note) => (
            <li key={note.id} data-kind={toneOf(note)}>
              <span>{describe(note)}</span>
              <time dateTime={new Date(note.at).toISOString()}>{formatSeconds(note.at)}</time>
            </li>
          ))}
        </ol>
      )}
    </div>
  );
}

export function describe(note: Note): string {
  switch (note.kind) {
    case "open":
      if (!note.again) return `Connected to ${note.node}`;
      return note.previous === note.node ? `Back on ${note.node}` : `Now on ${note.node}`;
    case "close":
      return note.deliberate ? "Dropped on purpose" : describeClose(note.code, note.reason);
    case "replayed":
      return note.count === 0
        ? "Recovered: nothing was missed"
        : `Recovered ${note.count} missed ${note.count === 1 ? "message" : "messages"}`;
    case "resync":
      return `Resynced ${note.channels} ${note.channels === 1 ? "channel" : "channels"}: read again from the server`;
  }
}

/** Codes below 3000 are the client's own word for what it saw; the others are the node's. */
function describeClose(code: number, reason: string): string {
  if (code < 3000) return `Connection lost: ${reason || "no reason known"}`;
  return `Closed by the node (${code}: ${reason || "no reason given"})`;
}

function toneOf(note: Note): string {
  if (note.kind === "close") return note.deliberate ? "plain" : "lost";
  return note.kind === "resync" ? "resync" : note.kind === "replayed" ? "good" : "plain";
}

function percentile({ latency }: Telemetry, p: number): number | undefined {
  if (latency.length === 0) return undefined;
  const sorted = latency.map(({ ms }) => ms).sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))];
}

function useCountdown(until: number | undefined): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (until === undefined) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 250);
    return () => clearInterval(timer);
  }, [until]);
  return until === undefined ? 0 : Math.max(0, Math.ceil((until - now) / 1000));
}
