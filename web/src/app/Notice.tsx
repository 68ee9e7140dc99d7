// One line under the header while something is not as it should be: what works, what doesn't, what happens next.

import { useConnection } from "@tideline/react";
import { useEffect, useState } from "react";
import { useLinkState } from "./Header";

/** A reconnect shorter than this is not worth a line that moves the page, milliseconds. */
const PATIENCE = 1_500;

export function Notice() {
  const { state } = useLinkState();
  const { lastClose, connect } = useConnection();
  const [late, setLate] = useState(false);
  const waiting = state === "connecting" || state === "reconnecting";
  useEffect(() => {
    setLate(false);
    if (!waiting) return;
    const timer = setTimeout(() => setLate(true), PATIENCE);
    return () => clearTimeout(timer);
  }, [waiting]);

  if (state === "offline")
    return (
      <p className="notice" data-tone="warn" role="status">
        You are offline. Everything here can be read; changes are off until the network is back.
      </p>
    );
  if (state === "disconnected")
    return (
      <p className="notice" data-tone="danger" role="alert">
        The server closed the connection ({lastClose?.code}: {lastClose?.reason || "no reason given"}) and
        asked not to come back. Changes still save; others’ changes don’t arrive.
        <button type="button" className="link" onClick={connect}>
          Connect again
        </button>
      </p>
    );
  if (waiting && late)
    return (
      <p className="notice" data-tone="info" role="status">
        Reconnecting. Changes still save; what you miss is replayed when the connection is back.
      </p>
    );
  return null;
}
