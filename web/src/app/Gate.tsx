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
        ) : state.status === "closed" ? (
          <>
            <h1>Sign in first</h1>
            <p>This server takes no guests, and this browser is not signed in.</p>
            <ul className="gate-ways">
              <li>
                Signed in on another device? Press <em>Open on another device</em> there, and open the link
                here.
              </li>
              <li>Otherwise sign in where your organisation does, and come back.</li>
            </ul>
            <button type="button" className="button primary" onClick={state.retry}>
              I have signed in
            </button>
            <p className="faint">
              You run this server?{" "}
              <a className="link" href="/api/docs">
                Its reference
              </a>{" "}
              says how an application signs its users in: <span className="mono">POST /api/session</span> with
              an id token.
            </p>
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
