import { expect, test } from "vitest";
import { Members } from "../src/members";

const info = (client: string) => ({ client, user: client });
const whole = (...clients: string[]) => Object.fromEntries(clients.map((c) => [c, info(c)]));
const names = (members: Members) => [...members.clients.keys()];

test("what came and went while the list was being read is applied to it", () => {
  const members = new Members();
  const turn = members.reading();
  members.move(info("came"), true);
  members.move(info("went"), false);
  expect(members.read(turn, whole("here", "went"))).toBe(true);
  expect(names(members)).toEqual(["here", "came"]);
});

test("what came before the reading began is the list's to know", () => {
  const members = new Members();
  members.move(info("early"), true);
  members.read(members.reading(), whole("here"));
  expect(names(members)).toEqual(["here"]);
});

test("a reading that was overtaken changes nothing", () => {
  const members = new Members();
  const first = members.reading();
  const second = members.reading();
  expect(members.read(second, whole("new"))).toBe(true);
  expect(members.read(first, whole("old"))).toBe(false);
  expect(names(members)).toEqual(["new"]);
});

test("after clear, an answer still on its way is nobody's", () => {
  const members = new Members();
  const turn = members.reading();
  members.clear();
  expect(members.read(turn, whole("ghost"))).toBe(false);
  expect(names(members)).toEqual([]);
});
