import { expect, test } from "vitest";
import { FleetHistory, formatAge, type NodeInfo } from "../src/app/fleet/model";

const node = (id: string, connections: number, boot = id): NodeInfo => ({
  id,
  boot,
  version: "1",
  state: "ready",
  connections,
  channels: 0,
  started: "2026-01-01T00:00:00Z",
  beat: "2026-01-01T00:00:00Z",
});

test("nodes that come and go leave gaps, not zeros", () => {
  const history = new FleetHistory();
  history.take([node("a", 5)], 1000);
  history.take([node("a", 6), node("b", 1)], 2000);
  history.take([node("b", 7)], 3000);
  expect(history.times()).toEqual([1000, 2000, 3000]);
  expect(history.nodes()).toEqual(["a", "b"]);
  expect(history.values("a")).toEqual([5, 6, null]);
  expect(history.values("b")).toEqual([null, 1, 7]);
});

test("two generations of one id, in a restart, are added up", () => {
  const history = new FleetHistory();
  history.take([node("a", 5, "old"), node("a", 2, "new")], 1000);
  expect(history.values("a")).toEqual([7]);
});

test("ten minutes are kept, and a node without a value in them is forgotten", () => {
  const history = new FleetHistory();
  history.take([node("gone", 1), node("a", 1)], 1000);
  history.take([node("a", 2)], 2000);
  history.take([node("a", 3), node("late", 9)], 2000 + 600_000);
  expect(history.times()).toEqual([602_000]);
  expect(history.nodes()).toEqual(["a", "late"]);
  expect(history.values("a")).toEqual([3]);
  expect(history.values("late")).toEqual([9]);
});

test("ages are short", () => {
  const at = Date.parse("2026-01-01T00:00:00Z");
  expect(formatAge("2025-12-31T23:59:30Z", at)).toBe("30 s");
  expect(formatAge("2025-12-31T22:00:00Z", at)).toBe("2 h");
  expect(formatAge("never", at)).toBe("–");
});
