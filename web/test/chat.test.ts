import { expect, test } from "vitest";
import { RoomModel } from "../src/app/chat/model";

const publication = (offset: number, id = `m${offset}`) => ({
  offset,
  data: { id, user: "u", time: 1_000 + offset, node: "n", data: { text: `text ${offset}` } },
});
const page = (from: number, to: number, epoch = "e") => ({
  epoch,
  publications: Array.from({ length: to - from + 1 }, (_, i) => publication(to - i)),
});
const offsets = (room: RoomModel) => room.view().map(({ offset }) => offset);

test("pages, live messages and repeats come out once each, in the channel's order", () => {
  const room = new RoomModel();
  room.learn([publication(12)]); // live, before the page has arrived
  room.newest(page(10, 12));
  room.learn([publication(13), publication(13)]);
  room.learn(page(7, 9).publications);
  expect(offsets(room)).toEqual([7, 8, 9, 10, 11, 12, 13]);
  expect(room.place()).toEqual({ epoch: "e", offset: 7 });
});

test("a newest page that does not reach what is known replaces it: there is no silent hole", () => {
  const room = new RoomModel();
  room.newest(page(1, 5));
  room.newest(page(50, 60));
  expect(offsets(room)[0]).toBe(50);
  const touching = new RoomModel();
  touching.newest(page(1, 5));
  touching.newest(page(6, 8));
  expect(offsets(touching)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
});

test("another epoch forgets the offsets of the last one", () => {
  const room = new RoomModel();
  room.newest(page(90, 95, "old"));
  room.newest({ epoch: "new", publications: [publication(1, "first")] });
  expect(offsets(room)).toEqual([1]);
});

test("a message is pending until its publication comes, by id; a failure can be retried and is shown once", () => {
  const room = new RoomModel();
  room.newest(page(1, 1));
  room.sending({ id: "mine", user: "u", text: "hello", at: 5 });
  expect(room.view().map(({ status }) => status)).toEqual(["sent", "sending"]);
  room.failed("mine", "no answer");
  expect(room.view()[1]).toMatchObject({ status: "failed", problem: "no answer" });
  room.sending({ id: "mine", user: "u", text: "hello", at: 6 });
  expect(room.view()).toHaveLength(2);
  room.learn([publication(2, "mine")]);
  expect(room.view().map(({ id, status }) => [id, status])).toEqual([
    ["m1", "sent"],
    ["mine", "sent"],
  ]);
});

test("an answer that comes after the publication does not bring the pending message back", () => {
  const room = new RoomModel();
  room.learn([publication(1, "mine")]);
  room.sending({ id: "mine", user: "u", text: "hello", at: 5 });
  expect(room.view()).toHaveLength(1);
});

test("a publication that is no message is passed over", () => {
  const room = new RoomModel();
  room.learn([
    { offset: 1, data: null },
    { offset: 2, data: { id: 3 } },
    { offset: 3, data: "text" },
  ]);
  expect(room.view()).toEqual([]);
});
