// All nodes, for operators: how many connections each holds over time, what state it is in, and a way to drain one.

import { useQuery } from "@tanstack/react-query";
import { useConnection } from "@tideline/react";
import { useEffect, useRef, useState } from "react";
import { asProblem } from "../session";
import { useToast } from "../ui/toast";
import FleetChart from "./FleetChart";
import { EVERY, FleetHistory, formatAge, type NodeInfo } from "./model";
import { OperatorHead } from "./OperatorHead";

export default function FleetView() {
  const { rpc, isConnected, node: mine } = useConnection();
  const toast = useToast();
  const [history] = useState(() => new FleetHistory());
  const [draining, setDraining] = useState<NodeInfo | null>(null);
  const query = useQuery({
    queryKey: ["nodes"],
    queryFn: async () => {
      const { nodes } = await rpc<{ nodes: NodeInfo[] }>("nodes");
      const at = Date.now();
      history.take(nodes, at);
      return { at, nodes: [...nodes].sort((a, b) => a.id.localeCompare(b.id)) };
    },
    enabled: isConnected,
    refetchInterval: EVERY,
    retry: false,
  });
  const nodes = query.data?.nodes ?? [];
  const total = nodes.reduce((sum, { connections }) => sum + connections, 0);

  const drain = async (node: NodeInfo) => {
    setDraining(null);
    try {
      const { total: done } = await rpc<{ total: number }>("drain", { node: node.id });
      toast(
        done > 0
          ? { text: `${node.id} drains: its connections move to the others.` }
          : { text: `${node.id} did not take the order.`, tone: "danger" },
      );
    } catch (error) {
      toast({ text: `Not drained. ${messageOf(error)}`, tone: "danger" });
    }
  };

  return (
    <section className="fleet" aria-labelledby="fleet-title">
      <OperatorHead id="fleet-title" title="Nodes" view="nodes">
        {query.data &&
          `${nodes.length} alive, ${total.toLocaleString()} ${total === 1 ? "connection" : "connections"}`}
      </OperatorHead>
      {query.isError && (
        <p className="inline-problem" role="alert">
          The nodes can’t be listed: {messageOf(query.error)}. Trying again every {EVERY / 1000} s.
        </p>
      )}
      <div className="fleet-chart">
        <h3>Connections by node</h3>
        <FleetChart history={history} at={query.data?.at ?? 0} />
      </div>
      <div className="fleet-table">
        <table>
          <thead>
            <tr>
              <th scope="col">Node</th>
              <th scope="col">State</th>
              <th scope="col" className="number">
                Connections
              </th>
              <th scope="col" className="number">
                Channels
              </th>
              <th scope="col">Version</th>
              <th scope="col">Zone</th>
              <th scope="col" className="number">
                Up
              </th>
              <th scope="col">
                <span className="visually-hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {nodes.map((node) => (
              <tr key={node.boot} data-testid="fleet-node" data-state={node.state}>
                <th scope="row" className="mono">
                  {node.id}
                  {node.id === mine && <span className="faint"> yours</span>}
                </th>
                <td>
                  <span className="node-state" data-state={node.state}>
                    {node.state}
                  </span>
                </td>
                <td className="number">{node.connections.toLocaleString()}</td>
                <td className="number">{node.channels.toLocaleString()}</td>
                <td className="mono">{node.version}</td>
                <td>{node.zone || "–"}</td>
                <td className="number">{formatAge(node.started, query.data?.at ?? 0)}</td>
                <td className="number">
                  <button
                    type="button"
                    className="button small"
                    disabled={node.state !== "ready"}
                    aria-label={`Drain ${node.id}`}
                    onClick={() => setDraining(node)}
                  >
                    Drain
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
        {query.data && nodes.length === 0 && <p className="faint">The registry names no node.</p>}
      </div>
      {draining && (
        <DrainDialog
          node={draining}
          last={nodes.filter(({ state }) => state === "ready").length < 2}
          onClose={() => setDraining(null)}
          onDrain={() => void drain(draining)}
        />
      )}
    </section>
  );
}

function DrainDialog(props: { node: NodeInfo; last: boolean; onClose: () => void; onDrain: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (dialog.current?.open === false) dialog.current.showModal();
  }, []);
  const { id, connections } = props.node;
  return (
    <dialog ref={dialog} className="dialog" aria-labelledby="drain-title" onClose={props.onClose}>
      <h2 id="drain-title">Drain {id}?</h2>
      <p>
        It takes no newcomers, closes its {connections.toLocaleString()}{" "}
        {connections === 1 ? "connection" : "connections"} spread over its drain window, and serves nobody
        until it is started again. Clients reconnect elsewhere and recover what they missed.
      </p>
      {props.last && (
        <p className="inline-problem">It is the last node that is ready: nobody can connect after this.</p>
      )}
      <div className="row">
        <span className="spring" />
        <button type="button" className="button" onClick={() => dialog.current?.close()}>
          Keep it
        </button>
        <button type="button" className="button danger" onClick={props.onDrain}>
          Drain {id}
        </button>
      </div>
    </dialog>
  );
}

function messageOf(error: unknown): string {
  if (typeof error === "object" && error !== null && "message" in error) return String(error.message);
  return asProblem(error).message;
}
