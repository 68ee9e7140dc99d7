import { defineConfig } from "vitest/config";
import { alias } from "./vite.config.ts";

export default defineConfig({
  resolve: { alias },
  test: {
    include: ["test/**/*.test.{ts,tsx}", "hooks/test/**/*.test.{ts,tsx}"],
    environment: "happy-dom",
    testTimeout: 20_000,
    hookTimeout: 120_000,
  },
});
