// What is shown before there is a session, and after it has ended.
import type { SessionState } from "./session";
import { Mark } from "./ui/Icon";

export function Gate({ state }: { state: Exclude<SessionState, { status: "ready" }> }) {
  return (
    <main className="gate">
      <div className="gate-card">
        <Mark size={44} />
        {state.status === "expired" ? (
          <>
            <h1>Your session has ended</h1>
            <p>
              It was signed out, or it is older than this server allows. What you saved is kept with your
              user; a new session starts as a new guest unless you sign in again.
            </p>
            <button type="button" className="button primary" onClick={state.restart}>
              Start a new session
            </button>
          </>
        ) : state.problem ? (
          <>
            <h1>{state.problem.lost ? "Tideline can’t be reached" : "Tideline is not ready"}</h1>
            <p role="status">{state.problem.message} We keep trying.</p>
            {state.problem.requestId && <p className="mono faint">Request {state.problem.requestId}</p>}
            <button type="button" className="button" onClick={state.retry}>
              Try now
            </button>
          </>
        ) : (
          <>
            <h1>Tideline</h1>
            <p role="status">Starting your session…</p>
          </>
        )}
      </div>
    </main>
  );
}
