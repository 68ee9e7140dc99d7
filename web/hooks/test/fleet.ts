// Real nodes for tests: the Go binary as processes, on a real redis-server, all on free ports of the loopback.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const root = join(import.meta.dirname, "../../..");
const run = promisify(execFile);
const SECRET = "a-secret-of-the-tests-long-enough-for-HS256";

export interface RunningNode {
  url: string;
  id: string;
  port: number;
  stop(signal: NodeJS.Signals): Promise<void>;
}

export class Fleet {
  readonly #dir = mkdtempSync(join(tmpdir(), "tideline-web-"));
  readonly #children = new Set<ChildProcess>();
  #redisPort = 0;

  /** Builds the node and starts Redis. Rejects, with what to install, when either is missing. */
  async start(): Promise<void> {
    const binary = join(this.#dir, "node");
    await run("go", ["build", "-o", binary, "./node"], { cwd: root }).catch((error: Error) => {
      throw new Error(`building the node failed; these tests need Go 1.26 or later: ${error.message}`);
    });
    const args = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"];
    for (let tries = 5; ; tries--) {
      this.#redisPort = await freePort();
      try {
        await this.#spawn(
          "redis-server",
          [...args, String(this.#redisPort)],
          {},
          /Ready to accept connections/,
        );
        return;
      } catch (error) {
        if (tries <= 1 || !String(error).includes("in use")) throw error; // another process was faster
      }
    }
  }

  /** Starts a node, on a port of its own or on one that another node had. */
  async node(id: string, port = 0): Promise<RunningNode> {
    const { child, ready } = await this.#spawn(
      join(this.#dir, "node"),
      [],
      {
        PORT: `127.0.0.1:${port}`,
        PRIVATE_PORT: "127.0.0.1:0",
        NODE_ID: id,
        REDIS_URL: `redis://127.0.0.1:${this.#redisPort}`,
        TOKEN_SECRETS: SECRET,
        DRAIN_GRACE: "0s",
        DRAIN_WINDOW: "1s",
      },
      /"node ready".*"public":"127\.0\.0\.1:(\d+)"/,
    );
    const at = Number(ready[1]);
    return {
      url: `ws://127.0.0.1:${at}/connection/websocket`,
      id,
      port: at,
      stop: (signal) => end(child, signal),
    };
  }

  /** Forgets all of Redis, as when another one was promoted that had nothing. */
  async flush(): Promise<void> {
    await run("redis-cli", ["-p", String(this.#redisPort), "FLUSHALL"]);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#children].map((child) => end(child, "SIGKILL")));
    rmSync(this.#dir, { recursive: true, force: true });
  }

  async #spawn(
    command: string,
    args: string[],
    env: NodeJS.ProcessEnv,
    ready: RegExp,
  ): Promise<{ child: ChildProcess; ready: RegExpMatchArray }> {
    const child = spawn(command, args, { cwd: this.#dir, env: { PATH: process.env.PATH, ...env } });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    let output = "";
    const found = await new Promise<RegExpMatchArray>((resolve, reject) => {
      const timer = setTimeout(() => fail("not ready within 60 s"), 60_000);
      const fail = (why: string) => {
        clearTimeout(timer);
        reject(new Error(`${command}: ${why}\n${output}`));
      };
      child.once("error", (error) => fail(`${error.message}; is it installed?`));
      child.once("exit", (code) => fail(`ended with ${code}`));
      for (const stream of [child.stdout, child.stderr]) {
        stream?.on("data", (chunk: Buffer) => {
          output += String(chunk);
          const match = output.match(ready);
          if (!match) return;
          clearTimeout(timer);
          resolve(match);
        });
      }
    });
    return { child, ready: found };
  }
}

/** A token as the session function makes them. */
export function token(user: string, seconds = 3600): string {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: "tideline",
    aud: ["tideline"],
    sub: user,
    iat: now,
    exp: now + seconds,
    jti: randomUUID(),
  };
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const body = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${body}.${createHmac("sha256", SECRET).update(body).digest("base64url")}`;
}

function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    const hard = setTimeout(() => child.kill("SIGKILL"), 30_000);
    child.once("exit", () => {
      clearTimeout(hard);
      resolve();
    });
    child.kill(signal);
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
