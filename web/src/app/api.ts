// REST calls of the page: one deadline, one retry after a stale token, problems as errors with the server's own words.

/** A refusal by the server (RFC 9457), or a call that did not get through (`status` 0). */
export class Problem extends Error {
  override readonly name = "Problem";
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly requestId?: string,
    /** The server's name of this kind of problem ("guests-disabled"); codes never change their meaning. */
    readonly code?: string,
  ) {
    super(detail || title);
  }

  /** The call may have been lost on the way; whether the server did it is unknown. */
  get lost(): boolean {
    return this.status === 0;
  }
}

/** What the type of a problem document begins with; its code follows. */
const TYPE_PREFIX = "urn:tideline:problem:";
/** How long one call may take, milliseconds. */
const DEADLINE = 10_000;

export interface Tokens {
  current(): string;
  /** Asks for a fresh token; concurrent callers share one request. */
  refresh(): Promise<string>;
}

export interface CallOptions {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

export interface Answer<T> {
  data: T;
  headers: Headers;
}

/** One request without a token. Rejects with a Problem. */
export async function call<T>(path: string, options: CallOptions = {}): Promise<Answer<T>> {
  const deadline = AbortSignal.timeout(DEADLINE);
  let response: Response;
  try {
    response = await fetch(path, {
      method: options.method ?? "GET",
      headers: {
        Accept: "application/json",
        ...(options.body === undefined ? {} : { "Content-Type": "application/json" }),
        ...options.headers,
      },
      body: options.body === undefined ? null : JSON.stringify(options.body),
      signal: options.signal ? AbortSignal.any([options.signal, deadline]) : deadline,
    });
    if (response.status === 204) return { data: undefined as T, headers: response.headers };
    if (response.ok) return { data: (await response.json()) as T, headers: response.headers };
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(
      0,
      deadline.aborted ? "No answer" : "Not reachable",
      deadline.aborted ? "The server took too long to answer." : "The server can't be reached.",
    );
  }
  throw await problemOf(response);
}

/** A request as the user. A 401 refreshes the token once and asks again. */
export async function authorized<T>(
  tokens: Tokens,
  path: string,
  options: CallOptions = {},
): Promise<Answer<T>> {
  const ask = (token: string) =>
    call<T>(path, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
  try {
    return await ask(tokens.current());
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    return ask(await tokens.refresh());
  }
}

async function problemOf(response: Response): Promise<Problem> {
  let title = response.statusText || `Status ${response.status}`;
  let detail = "";
  let code: string | undefined;
  try {
    const body: unknown = await response.json();
    if (typeof body === "object" && body !== null) {
      if ("title" in body && typeof body.title === "string") title = body.title;
      if ("detail" in body && typeof body.detail === "string") detail = body.detail;
      if ("type" in body && typeof body.type === "string" && body.type.startsWith(TYPE_PREFIX))
        code = body.type.slice(TYPE_PREFIX.length);
    }
  } catch {
    // Not a problem document: a proxy's page, say. The status has to do.
    if (response.status >= 500) detail = "The server has a problem. Try again in a moment.";
  }
  return new Problem(response.status, title, detail, response.headers.get("X-Request-Id") ?? undefined, code);
}
