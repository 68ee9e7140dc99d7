// Who the page belongs to: the cookie's session, its token, and what happens when it ends.

import { UnauthorizedError } from "@tideline/react";
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useState } from "react";
import { type Answer, authorized, type CallOptions, call, Problem, type Tokens } from "./api";
import { backoff } from "./backoff";

interface Issued {
  user: string;
  token: string;
  roles?: string[];
}

export interface Session {
  user: string;
  roles: readonly string[];
  /** For the socket: the token at hand the first time, a fresh one after that. */
  getToken: () => Promise<string>;
  /** A REST call as this user. */
  api: <T>(path: string, options?: CallOptions) => Promise<Answer<T>>;
}

export type SessionState =
  | { status: "loading"; problem?: Problem; retry: () => void }
  | { status: "ready"; session: Session }
  /** This deployment takes no guests, and this browser is not signed in. Nothing is tried until somebody asks. */
  | { status: "closed"; retry: () => void }
  | { status: "expired"; restart: () => void };

const Context = createContext<Session | null>(null);

/** The session of the components below `SessionProvider`. */
export function useSession(): Session {
  const session = useContext(Context);
  if (!session) throw new Error("useSession: no session above this component");
  return session;
}

export function SessionProvider({ session, children }: { session: Session; children: ReactNode }) {
  return <Context.Provider value={session}>{children}</Context.Provider>;
}

// One request however often React mounts the root: two would race to set the cookie of a new guest.
let starting: Promise<Answer<Issued>> | undefined;
function start(): Promise<Answer<Issued>> {
  starting ??= call<Issued>("/api/session", { method: "POST" }).finally(() => {
    starting = undefined;
  });
  return starting;
}

/** Starts or resumes the session, and keeps trying while the server can't be reached. */
export function useSessionState(): SessionState {
  const [issued, setIssued] = useState<Issued | null>(null);
  const [expired, setExpired] = useState(false);
  const [failure, setFailure] = useState<{ problem: Problem; attempt: number } | null>(null);
  const [attempt, setAttempt] = useState(0);

  useEffect(() => {
    if (issued || expired) return;
    let ignore = false;
    start().then(
      ({ data }) => {
        if (ignore) return;
        setIssued(data);
        setFailure(null);
      },
      (error: unknown) => {
        if (!ignore) setFailure({ problem: asProblem(error), attempt });
      },
    );
    return () => {
      ignore = true;
    };
  }, [issued, expired, attempt]);

  const retry = useCallback(() => setAttempt((n) => n + 1), []);
  const closed = failure?.problem.code === "guests-disabled";
  useEffect(() => {
    if (!failure || issued || closed) return;
    const timer = setTimeout(retry, backoff(failure.attempt));
    return () => clearTimeout(timer);
  }, [failure, issued, closed, retry]);

  const restart = useCallback(() => {
    setIssued(null);
    setExpired(false);
    retry();
  }, [retry]);

  const session = useMemo(() => (issued ? makeSession(issued, () => setExpired(true)) : null), [issued]);
  if (expired) return { status: "expired", restart };
  if (session) return { status: "ready", session };
  if (closed) return { status: "closed", retry };
  return { status: "loading", retry, ...(failure ? { problem: failure.problem } : {}) };
}

function makeSession(issued: Issued, onExpired: () => void): Session {
  const tokens = makeTokens(issued, onExpired);
  let handed = false;
  return {
    user: issued.user,
    roles: issued.roles ?? rolesIn(issued.token),
    getToken: async () => {
      // The socket asks again only when the server has called the last token too old.
      if (handed) return tokens.refresh();
      handed = true;
      return tokens.current();
    },
    api: (path, options) => authorized(tokens, path, options),
  };
}

function makeTokens(issued: Issued, onExpired: () => void): Tokens {
  let token = issued.token;
  let pending: Promise<string> | undefined;
  const fetchToken = async () => {
    try {
      const { data } = await call<{ token: string; user?: string }>("/api/session/token", { method: "POST" });
      // Another tab signed in as somebody else: this one's channels and todos are no longer the cookie's.
      if (data.user !== undefined && data.user !== issued.user) location.reload();
      token = data.token;
      return token;
    } catch (error) {
      if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
        onExpired();
        throw new UnauthorizedError("the session has ended");
      }
      throw error;
    }
  };
  return {
    current: () => token,
    refresh: () => {
      pending ??= fetchToken().finally(() => {
        pending = undefined;
      });
      return pending;
    },
  };
}

/** The roles that a JWT claims; only to decide what to show, the servers decide what is allowed. */
function rolesIn(token: string): string[] {
  try {
    const payload = token.split(".")[1] ?? "";
    const claims: unknown = JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
    if (typeof claims !== "object" || claims === null || !("roles" in claims) || !Array.isArray(claims.roles))
      return [];
    return claims.roles.filter((role) => typeof role === "string");
  } catch {
    return [];
  }
}

export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  return new Problem(0, "Something went wrong", error instanceof Error ? error.message : String(error));
}
