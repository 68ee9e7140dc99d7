import { defineConfig } from "vitest/config";
import { alias } from "./vite.config.ts";

export default defineConfig({
  resolve: { alias },
  test: {
    include: ["test/**/*.test.{ts,tsx}", "hooks/test/**/*.test.{ts,tsx}"],
    environment: "happy-dom",
    // Longer than any wait in a test; hooks also build the node.
    testTimeout: 180_000,
    hookTimeout: 300_000,
  },
});
