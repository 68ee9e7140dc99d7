// A small edge for developing the page: REST in memory and the Centrifuge protocol in JSON, two pretended nodes, no Redis.
// It is not shipped, and proves nothing about the real one; `TIDELINE=http://localhost:8080 npm run dev` uses that instead.
import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocket, WebSocketServer } from "ws";

interface Pub {
  offset: number;
  data: unknown;
}
interface Client {
  id: string;
  user: string;
  node: string;
  socket: WebSocket;
  channels: Set<string>;
}
interface Todo {
  id: string;
  title: string;
  note?: string;
  done: boolean;
  dueAt?: string;
  version: number;
  createdAt: string;
  updatedAt: string;
}
type Json = Record<string, unknown>;

const HISTORY = 1000;

export class DevEdge {
  readonly nodes = ["node-1", "node-2"];
  epoch = randomUUID().slice(0, 8);
  /** Milliseconds that each REST answer waits. */
  delay = 0;
  /** Answers every REST call with 503 while true. */
  failing = false;
  #turn = 0;
  readonly #ws = new WebSocketServer({ noServer: true });
  readonly #clients = new Set<Client>();
  readonly #channels = new Map<string, Pub[]>();
  readonly #ids = new Set<string>();
  readonly #todos = new Map<string, Map<string, Todo & { deleted?: boolean }>>();

  // REST

  handle = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const url = new URL(req.url ?? "/", "http://dev");
    let body: Json = {};
    try {
      const chunks: Buffer[] = [];
      for await (const chunk of req) chunks.push(chunk as Buffer);
      if (chunks.length > 0) body = JSON.parse(Buffer.concat(chunks).toString()) as Json;
    } catch {
      return problem(res, 400, "The body is not JSON.");
    }
    if (this.delay > 0) await new Promise((done) => setTimeout(done, this.delay));
    if (this.failing) return problem(res, 503, "Try again in a moment.");
    const path = url.pathname;
    if (path.startsWith("/api/session")) return this.#session(req, res, path, url);
    const user = /^Bearer dev\.(.+)$/.exec(req.headers.authorization ?? "")?.[1];
    if (!user) return problem(res, 401, "The token is missing or has expired.");
    if (path === "/api/todos" || path.startsWith("/api/todos/"))
      return this.#todo(req, res, user, path, url, body);
    problem(res, 404, "There is nothing here.");
  };

  #session(req: IncomingMessage, res: ServerResponse, path: string, url: URL): void {
    const cookie = /dev_session=([\w-]+)/.exec(req.headers.cookie ?? "")?.[1];
    if (req.method === "POST" && path === "/api/session") {
      const user = cookie ?? `u${randomUUID().replaceAll("-", "").slice(0, 20)}`;
      res.setHeader("Set-Cookie", `dev_session=${user}; HttpOnly; SameSite=Lax; Path=/`);
      return json(res, 201, { user, token: `dev.${user}` });
    }
    if (req.method === "GET" && path.startsWith("/api/session/link/")) {
      res.setHeader("Set-Cookie", `dev_session=${path.split("/").pop()}; HttpOnly; SameSite=Lax; Path=/`);
      res.writeHead(303, { Location: "/" });
      res.end();
      return;
    }
    if (!cookie) return problem(res, 401, "There is no session.");
    if (path === "/api/session/token") return json(res, 200, { user: cookie, token: `dev.${cookie}` });
    if (path === "/api/session/link") {
      const origin = `http://${req.headers.host ?? url.host}`;
      return json(res, 201, {
        url: `${origin}/api/session/link/${cookie}`,
        expiresAt: new Date(Date.now() + 60_000).toISOString(),
      });
    }
    if (path === "/api/session/node") {
      res.writeHead(204);
      res.end();
      return;
    }
    problem(res, 404, "There is nothing here.");
  }

  #todo(req: IncomingMessage, res: ServerResponse, user: string, path: string, url: URL, body: Json): void {
    const mine = this.#todos.get(user) ?? new Map<string, Todo & { deleted?: boolean }>();
    this.#todos.set(user, mine);
    const id = path.split("/")[3];
    if (req.method === "GET" && !id) {
      const all = [...mine.values()]
        .filter((t) => !t.deleted)
        .sort((a, b) => b.createdAt.localeCompare(a.createdAt));
      const from = Number(url.searchParams.get("cursor") ?? 0);
      const size = Number(url.searchParams.get("limit") ?? 100);
      const next = from + size < all.length ? { next: String(from + size) } : {};
      return json(res, 200, { items: all.slice(from, from + size), ...next });
    }
    if (id === "clear-completed") {
      const done = [...mine.values()].filter((t) => t.done && !t.deleted);
      for (const t of done) this.#save(user, { ...t, version: t.version + 1, deleted: true }, "todo.deleted");
      return json(res, 200, { deleted: done.length });
    }
    const known = id ? mine.get(id) : undefined;
    const old = known?.deleted ? undefined : known;
    const title = typeof body.title === "string" ? body.title.trim() : old?.title;
    if (req.method !== "DELETE" && req.method !== "GET" && (!title || title.length > 500))
      return problem(res, 422, "A title has 1 to 500 characters.");
    const at = new Date().toISOString();
    if ((req.method === "POST" && !id) || (req.method === "PUT" && !old)) {
      const todo = {
        id: id ?? randomUUID(),
        title: title ?? "",
        done: body.done === true,
        createdAt: at,
        updatedAt: at,
      };
      const saved = { ...todo, ...extras(body), version: (known?.version ?? 0) + 1 } as Todo;
      this.#save(user, saved, "todo.created");
      return json(res, 201, saved);
    }
    if (!old) return problem(res, 404, "This todo does not exist.");
    const match = req.headers["if-match"];
    if (match && match !== `"${old.version}"`)
      return problem(res, 412, "The todo was changed by somebody else.");
    if (req.method === "GET") return json(res, 200, old);
    if (req.method === "DELETE") {
      this.#save(user, { ...old, version: old.version + 1, deleted: true }, "todo.deleted");
      res.writeHead(204);
      res.end();
      return;
    }
    const saved = {
      ...old,
      ...extras(body),
      title: title ?? old.title,
      version: old.version + 1,
      updatedAt: at,
    };
    if (typeof body.done === "boolean") saved.done = body.done;
    this.#save(user, saved, "todo.updated");
    json(res, 200, saved);
  }

  #save(user: string, todo: Todo & { deleted?: boolean }, type: string): void {
    this.#todos.get(user)?.set(todo.id, todo);
    const { deleted: _, ...plain } = todo;
    this.publish(`todos:#${user}`, { type, todo: plain });
  }

  // The socket

  upgrade = (req: IncomingMessage, socket: Duplex, head: Buffer): void => {
    this.#ws.handleUpgrade(req, socket, head, (ws) => this.#accept(ws));
  };

  #accept(socket: WebSocket): void {
    const client: Client = {
      id: randomUUID(),
      user: "",
      node: this.nodes[this.#turn++ % this.nodes.length] ?? "node-1",
      socket,
      channels: new Set(),
    };
    socket.on("message", (frame) => {
      for (const line of String(frame).split("\n")) {
        if (line.trim() !== "" && line !== "{}") this.#command(client, JSON.parse(line) as Json);
      }
    });
    const ping = setInterval(() => socket.send("{}"), 25_000);
    socket.on("close", () => {
      clearInterval(ping);
      this.#clients.delete(client);
      for (const channel of client.channels) this.#push(channel, { leave: { info: info(client) } });
    });
  }

  #command(client: Client, command: Json): void {
    const id = command.id as number;
    const reply = (body: Json) => client.socket.send(JSON.stringify({ id, ...body }));
    const refuse = (code: number, message: string) => reply({ error: { code, message } });
    const [method] = Object.keys(command).filter((key) => key !== "id");
    const args = (method ? command[method] : {}) as Json;
    const channel = String(args.channel ?? "");
    switch (method) {
      case "connect": {
        client.user = String(args.token ?? "").replace(/^dev\./, "");
        this.#clients.add(client);
        return reply({
          connect: { client: client.id, version: "dev", ping: 25, pong: true, data: { node: client.node } },
        });
      }
      case "subscribe": {
        const owner = channel.split("#")[1];
        if (owner !== undefined && owner !== client.user) return refuse(103, "permission denied");
        const log = this.#log(channel);
        const since = Number(args.offset ?? 0);
        const missed = log.filter((p) => p.offset > since);
        const recovered = args.recover === true && args.epoch === this.epoch && missed.length <= HISTORY;
        reply({
          subscribe: {
            recoverable: true,
            positioned: true,
            epoch: this.epoch,
            offset: recovered ? since : top(log),
            ...(args.recover === true ? { was_recovering: true, recovered } : {}),
            ...(recovered ? { publications: missed } : {}),
          },
        });
        client.channels.add(channel);
        return this.#push(channel, { join: { info: info(client) } });
      }
      case "unsubscribe":
        client.channels.delete(channel);
        this.#push(channel, { leave: { info: info(client) } });
        return reply({ unsubscribe: {} });
      case "presence": {
        const here = [...this.#clients].filter((c) => c.channels.has(channel));
        return reply({ presence: { presence: Object.fromEntries(here.map((c) => [c.id, info(c)])) } });
      }
      case "history": {
        const since = args.since as { offset?: number } | undefined;
        let pubs = this.#log(channel);
        if (since)
          pubs = pubs.filter((p) =>
            args.reverse ? p.offset < (since.offset ?? 0) : p.offset > (since.offset ?? 0),
          );
        if (args.reverse) pubs = [...pubs].reverse();
        return reply({
          history: {
            publications: pubs.slice(0, Number(args.limit ?? 0)),
            epoch: this.epoch,
            offset: top(this.#log(channel)),
          },
        });
      }
      case "rpc": {
        const data = (args.data ?? {}) as Json;
        if (args.method === "time") return reply({ rpc: { data: { time: Date.now() } } });
        if (args.method === "node.info")
          return reply({ rpc: { data: { node: client.node, version: "dev" } } });
        if (args.method !== "publish") return refuse(104, "method not found");
        const to = String(data.channel ?? "");
        if (!client.channels.has(to)) return refuse(103, "permission denied");
        if (!this.#ids.has(String(data.id))) {
          this.#ids.add(String(data.id));
          this.publish(to, {
            id: data.id,
            user: client.user,
            time: Date.now(),
            node: client.node,
            data: data.data,
          });
        }
        return reply({ rpc: { data: { epoch: this.epoch, offset: top(this.#log(to)) } } });
      }
      default:
        refuse(104, "method not found");
    }
  }

  // For tests and demonstrations

  publish(channel: string, data: unknown): void {
    const log = this.#log(channel);
    const pub = { offset: top(log) + 1, data };
    log.push(pub);
    if (log.length > HISTORY) log.shift();
    this.#push(channel, { pub });
  }

  /** Closes every socket with a code. */
  closeAll(code: number, reason: string): void {
    for (const client of this.#clients) client.socket.close(code, reason);
  }

  /** Forgets where every channel stands, as when another Redis is promoted. */
  loseHistory(): void {
    this.epoch = randomUUID().slice(0, 8);
  }

  close(): void {
    for (const client of this.#clients) client.socket.terminate();
    this.#ws.close();
  }

  #log(channel: string): Pub[] {
    const log = this.#channels.get(channel) ?? [];
    this.#channels.set(channel, log);
    return log;
  }

  #push(channel: string, push: Json): void {
    const frame = JSON.stringify({ push: { channel, ...push } });
    for (const client of this.#clients) {
      if (client.channels.has(channel) && client.socket.readyState === WebSocket.OPEN)
        client.socket.send(frame);
    }
  }
}

const top = (log: Pub[]): number => log.at(-1)?.offset ?? 0;
const info = (client: Client): Json => ({ client: client.id, user: client.user });

function extras(body: Json): Partial<Todo> {
  const out: Partial<Todo> = {};
  if (typeof body.note === "string") out.note = body.note;
  if (typeof body.dueAt === "string") out.dueAt = body.dueAt;
  return out;
}

function json(res: ServerResponse, status: number, body: unknown): void {
  res.writeHead(status, { "Content-Type": "application/json" });
  res.end(JSON.stringify(body));
}

function problem(res: ServerResponse, status: number, detail: string): void {
  res.writeHead(status, { "Content-Type": "application/problem+json" });
  res.end(JSON.stringify({ type: "about:blank", title: detail, status, detail }));
}
