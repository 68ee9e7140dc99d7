import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { devEdge } from "./dev/plugin";

// With TIDELINE=http://localhost:8080 the dev server stands in front of a running system; without it, of the small edge in dev/.
const target = process.env.TIDELINE;
const proxied = (ws: boolean) => ({ target: target ?? "", changeOrigin: false, ws });

export default defineConfig({
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
