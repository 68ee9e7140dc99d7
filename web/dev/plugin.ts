// Mounts the small edge on Vite's own server, and a few switches to watch the page's states: POST /dev/close, /dev/lose, /dev/fail, /dev/slow.
import type { Plugin } from "vite";
import { DevEdge } from "./edge.ts";

export function devEdge(edge = new DevEdge()): Plugin {
  return {
    name: "tideline-dev-edge",
    configureServer: mount,
    configurePreviewServer: mount,
  };

  function mount(server: { middlewares: { use: (handler: never) => void }; httpServer: unknown }): void {
    const use = server.middlewares.use.bind(server.middlewares) as unknown as (
      path: string,
      handler: (req: import("node:http").IncomingMessage, res: import("node:http").ServerResponse) => void,
    ) => void;
    use("/api", (req, res) => {
      req.url = `/api${req.url ?? ""}`;
      void edge.handle(req, res);
    });
    use("/dev", (req, res) => {
      if (req.url === "/close") edge.closeAll(3001, "shutdown");
      if (req.url === "/lose") edge.loseHistory();
      if (req.url === "/fail") edge.failing = !edge.failing;
      if (req.url === "/slow") edge.delay = edge.delay ? 0 : 2000;
      res.end("ok\n");
    });
    const http = server.httpServer as import("node:http").Server | null;
    http?.on("upgrade", (req, socket, head) => {
      if (req.url?.startsWith("/connection/websocket")) edge.upgrade(req, socket, head);
    });
  }
}
