import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { insist, TRIES } from "../src/app/ui/later";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("a part that doesn't come is asked for again, and comes when the network is back", async () => {
  let asked = 0;
  const part = insist(async () => {
    if (++asked < 4) throw new TypeError("Failed to fetch dynamically imported module");
    return "part";
  });
  await vi.runAllTimersAsync();
  expect(await part).toBe("part");
  expect(asked).toBe(4);
});

test("what is not there is given up after two minutes, and the mistake is told", async () => {
  let asked = 0;
  const start = Date.now();
  const part = insist(async () => {
    asked++;
    throw new TypeError("gone");
  });
  const told = expect(part).rejects.toThrow("gone");
  await vi.runAllTimersAsync();
  await told;
  expect(asked).toBe(TRIES);
  expect(Date.now() - start).toBeGreaterThan(40_000);
  expect(Date.now() - start).toBeLessThan(120_000);
});
