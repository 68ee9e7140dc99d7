// @vitest-environment node
// The REST client against a real HTTP server in the test.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { authorized, call, Problem, type Tokens } from "../src/app/api";

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

async function server(handle: (req: IncomingMessage, res: ServerResponse) => void): Promise<string> {
  const http = createServer((req, res) => {
    res.setHeader("Access-Control-Allow-Origin", "*");
    res.setHeader("Access-Control-Allow-Headers", "*");
    if (req.method === "OPTIONS") res.end();
    else handle(req, res);
  });
  await new Promise<void>((done) => http.listen(0, "127.0.0.1", done));
  closing.push(() => {
    http.closeAllConnections();
    http.close();
  });
  return `http://127.0.0.1:${(http.address() as AddressInfo).port}/`;
}

function keys(): Tokens & { refreshed: number } {
  const tokens = {
    refreshed: 0,
    current: () => (tokens.refreshed === 0 ? "stale" : "fresh"),
    refresh: async () => {
      tokens.refreshed++;
      return "fresh";
    },
  };
  return tokens;
}

test("a 401 refreshes the token and asks once more", async () => {
  const seen: (string | undefined)[] = [];
  const url = await server((req, res) => {
    seen.push(req.headers.authorization);
    res.writeHead(req.headers.authorization === "Bearer fresh" ? 200 : 401);
    res.end("{}");
  });
  const tokens = keys();
  await authorized(tokens, url);
  expect(seen).toEqual(["Bearer stale", "Bearer fresh"]);
  expect(tokens.refreshed).toBe(1);
});

test("a second 401 is a refusal, not a loop", async () => {
  let asked = 0;
  const url = await server((_req, res) => {
    asked++;
    res.writeHead(401);
    res.end("{}");
  });
  await expect(authorized(keys(), url)).rejects.toMatchObject({ status: 401 });
  expect(asked).toBe(2);
});

test("a problem document's words become the error's", async () => {
  const url = await server((_req, res) => {
    res.writeHead(422, { "Content-Type": "application/problem+json" });
    res.end(
      '{"type":"urn:tideline:problem:validation-failed","title":"Unprocessable Entity","status":422,"detail":"A title has 1 to 500 characters."}',
    );
  });
  await expect(call(url)).rejects.toMatchObject({
    name: "Problem",
    status: 422,
    code: "validation-failed",
    message: "A title has 1 to 500 characters.",
  });
});

test("a proxy's page of HTML is a problem with its status", async () => {
  const url = await server((_req, res) => {
    res.writeHead(502, { "Content-Type": "text/html" });
    res.end("<html>Bad Gateway</html>");
  });
  await expect(call(url)).rejects.toMatchObject({
    status: 502,
    message: expect.stringContaining("Try again"),
  });
});

test("a connection that breaks is told apart from a refusal", async () => {
  const url = await server((req) => req.socket.destroy());
  const error = await call(url).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(Problem);
  expect((error as Problem).lost).toBe(true);
});

test("an answer without a body is undefined", async () => {
  const url = await server((_req, res) => {
    res.writeHead(204);
    res.end();
  });
  expect((await call(url, { method: "DELETE" })).data).toBeUndefined();
});
