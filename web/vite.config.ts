import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { devEdge } from "./dev/plugin.ts";

// With TIDELINE=http://localhost:8080 the dev server stands in front of a running system; without it, of the small edge in dev/.
const target = process.env.TIDELINE;
const proxied = (ws: boolean) => ({ target: target ?? "", changeOrigin: false, ws });

/** The page uses the package's sources, so there is one implementation and no build step between them. */
export const alias = {
  "@tideline/react/query": fileURLToPath(new URL("hooks/src/query.ts", import.meta.url)),
  "@tideline/react": fileURLToPath(new URL("hooks/src/index.ts", import.meta.url)),
};

export default defineConfig({
  resolve: { alias },
  plugins: [react(), ...(target ? [] : [devEdge()])],
  server: target ? { proxy: { "/api": proxied(false), "/connection": proxied(true) } } : {},
  build: {
    outDir: "../node/page/dist",
    emptyOutDir: true,
    // The policy that the page is served under allows neither inline script nor data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: false,
  },
});
