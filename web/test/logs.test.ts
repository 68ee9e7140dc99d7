// What becomes of a log's lines: their order, their bounds, their colours, what is found in them, and where the view's address leads.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Ansi, SEQUENCES_MAX, type Span } from "../src/app/logs/ansi";
import { CONTRAST, contrast, GROUNDS, legible, lookOf, type Rgb } from "../src/app/logs/colour";
import { asText, LINES_MAX, type Line, LogModel, TEXT_MAX, WAITING_MAX } from "../src/app/logs/model";
import { channelOf, hashOf, type Place, placeOf } from "../src/app/logs/places";
import { pieces, QUERY_MAX, Search, step } from "../src/app/logs/search";

const pub = (offset: number, ...lines: object[]) => ({ offset, data: { type: "lines", lines } });
const m = (text: string, more: object = {}) => ({ m: text, ...more });
const texts = (model: LogModel) => model.view().lines.map(({ text }) => text);
const many = (from: number, count: number) => Array.from({ length: count }, (_, n) => m(`n=${from + n}`));

test("history and what is published meanwhile come once, in order", () => {
  const model = new LogModel();
  model.reading();
  model.publication(pub(3, m("c")));
  model.publication(pub(4, m("d")));
  expect(texts(model)).toEqual([]);
  model.history({ publications: [pub(3, m("c")), pub(2, m("b")), pub(1, m("a"))], epoch: "e" });
  model.publication(pub(4, m("d")));
  model.publication(pub(5, m("e")));
  expect(texts(model)).toEqual(["a", "b", "c", "d", "e"]);
});

test("what can't be had after an interruption is announced, and only then", () => {
  const model = new LogModel();
  model.history({ publications: [pub(1, m("a"))], epoch: "e" });
  model.history({ publications: [pub(2, m("b")), pub(1, m("a"))], epoch: "e" });
  expect(texts(model)).toEqual(["a", "b"]);
  model.history({ publications: [pub(9, m("i"))], epoch: "e" });
  expect(model.view().lines.map(({ kind }) => kind)).toEqual(["line", "line", "gap", "line"]);
  // Another epoch counts anew: lower offsets are other publications.
  model.history({ publications: [pub(1, m("new"))], epoch: "f" });
  expect(
    model
      .view()
      .lines.slice(4)
      .map(({ kind, text }) => (kind === "gap" ? kind : text)),
  ).toEqual(["gap", "new"]);
  model.history(null);
  expect(model.view().lines.at(-1)?.text).toMatch(/could not be read/);
  const fresh = new LogModel();
  fresh.history(null);
  expect(texts(fresh)).toEqual([]);
});

test("each kind of line is told from the others", () => {
  const model = new LogModel();
  model.publication(
    pub(
      1,
      m("out", { s: "stdout", t: 1000 }),
      m("long", { s: "stderr", cut: true }),
      { note: "the container was started" },
      { gap: "sampled" },
      { dropped: 1234 },
      { dropped: 1 },
      { t: 2000, data: { type: "container", action: "die", name: "web", image: "nginx", exit: "137" } },
    ),
  );
  const lines = model.view().lines;
  expect(lines.map(({ kind }) => kind)).toEqual([
    "line",
    "line",
    "note",
    "gap",
    "dropped",
    "dropped",
    "event",
  ]);
  expect(lines[1]).toMatchObject({ source: "stderr", cut: true });
  expect(lines[4]?.text).toBe(`${(1234).toLocaleString()} lines dropped: they came too fast`);
  expect(lines[5]?.text).toMatch(/^1 line dropped/);
  expect(lines[6]?.text).toBe("container die web (nginx, exit code 137)");
  expect(asText(lines)).toBe(
    [
      "1970-01-01T00:00:01.000Z stdout out",
      "stderr long […]",
      "-- the container was started",
      "-- gap: sampled",
      `-- ${lines[4]?.text}`,
      `-- ${lines[5]?.text}`,
      "1970-01-01T00:00:02.000Z container die web (nginx, exit code 137)",
      "",
    ].join("\n"),
  );
});

test("what is no publication of lines changes nothing", () => {
  const model = new LogModel();
  for (const data of [
    null,
    7,
    "x",
    [],
    {},
    { type: "lines" },
    { type: "other", lines: [m("x")] },
    { type: "lines", lines: [null, 3, "x"] },
  ])
    model.publication({ offset: 1, data });
  model.publication({
    offset: 2,
    data: { type: "lines", lines: [{ m: 5, s: 7, t: "late", data: { type: 1 } }] },
  });
  expect(texts(model)).toEqual([""]);
});

test("at most so many lines are kept, and it is said how many had to go", () => {
  const model = new LogModel();
  model.publication(pub(1, ...many(0, LINES_MAX)));
  expect(model.view()).toMatchObject({ gone: 0 });
  model.publication(pub(2, m("one more")));
  expect(model.view().lines).toHaveLength(LINES_MAX);
  expect(model.view()).toMatchObject({ gone: 1 });
  expect(texts(model)[0]).toBe("n=1");
  expect(texts(model).at(-1)).toBe("one more");
});

test("and at most so much text", () => {
  const model = new LogModel();
  const big = m("x".repeat(8 * 1024));
  const fit = Math.floor(TEXT_MAX / (8 * 1024 + 100));
  model.publication(pub(1, ...Array.from({ length: fit }, () => big)));
  expect(model.view()).toMatchObject({ gone: 0 });
  model.publication(pub(2, big));
  expect(model.view().lines).toHaveLength(fit);
  expect(model.view()).toMatchObject({ gone: 1 });
});

test("while somebody reads further up nothing goes: a full log waits", () => {
  const model = new LogModel();
  model.publication(pub(1, ...many(0, LINES_MAX - 1)));
  model.hold();
  model.publication(pub(2, m("last that fits"), m("waits")));
  expect(model.view()).toMatchObject({ waiting: 1, gone: 0, paused: false });
  expect(texts(model)[0]).toBe("n=0");
  model.follow();
  expect(model.view()).toMatchObject({ waiting: 0, gone: 1 });
  expect(texts(model).slice(-2)).toEqual(["last that fits", "waits"]);
});

test("paused, so many lines wait; then the oldest of them go, and that is said", () => {
  const model = new LogModel();
  model.publication(pub(1, m("before")));
  model.pause();
  model.publication(pub(2, ...many(0, WAITING_MAX)));
  expect(model.view()).toMatchObject({ paused: true, waiting: WAITING_MAX, waitingDropped: 0 });
  model.publication(pub(3, m("x"), m("y")));
  expect(model.view()).toMatchObject({ waiting: WAITING_MAX, waitingDropped: 2 });
  expect(texts(model)).toEqual(["before"]);
  model.follow();
  expect(model.view()).toMatchObject({ paused: false, waiting: 0, waitingDropped: 0 });
  const all = model.view().lines;
  expect(all[1]).toMatchObject({ kind: "dropped" });
  expect(all[1]?.text).toMatch(/^2 lines/);
  expect(all[2]?.text).toBe("n=2");
  expect(all.at(-1)?.text).toBe("y");
  expect(all).toHaveLength(WAITING_MAX + 2);
});

// Colours

const ESC = "\u001b";
const spans = (raw: string): readonly Span[] => new Ansi().line(raw).spans ?? [];
const shape = (raw: string) =>
  spans(raw).map(({ text, look, decorations }) => [text, look.color !== undefined, decorations.join()]);

test("colours and decorations begin and end where a terminal's do", () => {
  expect(shape(`${ESC}[31mred${ESC}[0m plain ${ESC}[1;3;4;9mall${ESC}[22;23;24;29m none`)).toEqual([
    ["red", true, ""],
    [" plain ", false, ""],
    ["all", false, "bold,italic,underline,strikethrough"],
    [" none", false, ""],
  ]);
  expect(shape(`${ESC}[38;5;208m256${ESC}[39m${ESC}[38;2;1;2;3mtrue`)).toEqual([
    ["256", true, ""],
    ["true", true, ""],
  ]);
  // The form with colons is the same colour; a kind of underline is an underline.
  expect(spans(`${ESC}[38:2::9:80:7mx`)).toEqual(spans(`${ESC}[38;2;9;80;7mx`));
  expect(spans(`${ESC}[38:5:200mx`)).toEqual(spans(`${ESC}[38;5;200mx`));
  expect(shape(`${ESC}[4:3mx${ESC}[4:0my`)).toEqual([
    ["x", false, "underline"],
    ["y", false, ""],
  ]);
  expect(shape(`${ESC}[7mx`)).toEqual([["x", false, "reverse"]]);
});

test("a colour goes on to the next line of its stream, until a hole", () => {
  const model = new LogModel();
  const first = (n: number) => model.view().lines[n]?.spans?.[0]?.look.color;
  model.publication(
    pub(1, m(`${ESC}[31mred`, { s: "stdout" }), m("other", { s: "stderr" }), m("still red", { s: "stdout" })),
  );
  expect(first(0)).toBeDefined();
  expect(model.view().lines[1]?.spans).toBeUndefined();
  expect(first(2)).toBe(first(0));
  model.publication(pub(2, { dropped: 3 }, m("unknown", { s: "stdout" })));
  expect(model.view().lines[4]?.spans).toBeUndefined();
  model.publication(pub(3, m(`${ESC}[31mcut`, { s: "stdout", cut: true }), m("not red", { s: "stdout" })));
  expect(model.view().lines[6]?.spans).toBeUndefined();
});

test("of everything else that moves a terminal only the text is left", () => {
  for (const [raw, text] of [
    [`${ESC}]0;title\u0007x`, "x"],
    [`${ESC}]8;;https://a.b${ESC}\\link${ESC}]8;;${ESC}\\`, "link"],
    [`${ESC}[2J${ESC}[1;1H${ESC}[?25lx${ESC}[K`, "x"],
    [`${ESC}(Bx${ESC}=${ESC}>y`, "xy"],
    [`${ESC}[>4;2mx${ESC}[1 qy`, "xy"],
    ["10%\r50%\r100%", "100%"],
    [`${ESC}[32m10%\r100%`, "100%"],
    ["done\r", "done"],
    ["a\tb\u0000\u0007\u009bc", "a\tbc"],
    [`cut off ${ESC}[3`, "cut off "],
    [`cut off ${ESC}`, "cut off "],
    ["<b>&amp;</b>", "<b>&amp;</b>"],
  ] as const)
    expect(new Ansi().line(raw).text, JSON.stringify(raw)).toBe(text);
});

test("a hostile line costs no more than its length, and colours have a bound", () => {
  const began = performance.now();
  for (const part of [
    ESC,
    `${ESC}[`,
    `${ESC}]`,
    `${ESC}[1m`,
    `${ESC}[:`,
    `${ESC}[?`,
    `${ESC}[ `,
    "\r",
    `${ESC}[38;5;`,
    `${ESC}[1;`,
  ]) {
    const model = new LogModel();
    for (let n = 1; n <= 20; n++) model.publication(pub(n, m(part.repeat(8192 / part.length))));
    const end = `${ESC}[${part.repeat(2000)}`;
    model.publication(pub(21, m(end)));
  }
  expect(performance.now() - began).toBeLessThan(5_000);
  const at = `${ESC}[31mx`;
  expect(spans(at.repeat(SEQUENCES_MAX))).toHaveLength(SEQUENCES_MAX);
  const past = new Ansi().line(at.repeat(SEQUENCES_MAX + 1));
  expect(past).toEqual({ text: "x".repeat(SEQUENCES_MAX + 1) });
});

test("every colour that a log can bring is readable on every ground that a line can have, in both themes", () => {
  const css = readFileSync(`${import.meta.dirname}/../src/app/styles/tokens.css`, "utf8");
  const token = (name: string): { light: Rgb; dark: Rgb } => {
    const [, light, dark] = new RegExp(`--${name}: light-dark\\((#\\w{6}), (#\\w{6})\\)`).exec(css) ?? [];
    const rgb = (hex = "") =>
      [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as unknown as Rgb;
    return { light: rgb(light), dark: rgb(dark) };
  };
  expect(GROUNDS).toEqual(token("accent-soft"));
  const parse = (text: string): Rgb[] =>
    [...text.matchAll(/rgb\((\d+) (\d+) (\d+)\)/g)].map(([, ...rgb]) => rgb.map(Number) as unknown as Rgb);
  let seen = 0;
  for (let n = 0; n < 256; n++) {
    const [span] = spans(`${ESC}[38;5;${n}mx`);
    const [light, dark] = parse(span?.look.color ?? "");
    for (const ground of ["surface", "hover", "accent-soft"]) {
      expect(contrast(light as Rgb, token(ground).light), `${n} on light ${ground}`).toBeGreaterThan(4.5);
      expect(contrast(dark as Rgb, token(ground).dark), `${n} on dark ${ground}`).toBeGreaterThan(4.5);
    }
    const [own] = spans(`${ESC}[48;5;${n}mx`);
    const [ink, ground] = [parse(own?.look.color ?? "")[0], parse(own?.look.backgroundColor ?? "")[0]];
    expect(contrast(ink as Rgb, ground as Rgb), `on ${n}`).toBeGreaterThan(4.5);
    seen++;
  }
  expect(seen).toBe(256);
  expect(legible([0, 0, 0], [0, 0, 0])).not.toEqual([0, 0, 0]);
  expect(contrast(legible([127, 127, 127], [128, 128, 128]), [128, 128, 128])).toBeGreaterThanOrEqual(
    CONTRAST,
  );
  expect(lookOf("not, a, colour", null)).toEqual(lookOf(null, null));
});

// Finding

const line = (seq: number, text: string): Line => ({ seq, kind: "line", text });

test("finding takes text as it is, without regard to case", () => {
  const search = new Search("a.B*(");
  expect(search.has(line(1, "xA.b*(y"))).toBe(true);
  expect(search.has(line(2, "aXB"))).toBe(false);
  expect(search.ranges("a.b*(A.B*(")).toEqual([
    [0, 5],
    [5, 10],
  ]);
  const known = line(3, "x a.b*(");
  for (let n = 0; n < 3; n++)
    expect([search.has(known), search.ranges(known.text)]).toEqual([true, [[2, 7]]]);
  expect(new Search("").has(line(4, "anything"))).toBe(false);
  const longest = "y".repeat(QUERY_MAX);
  expect(new Search(`${longest}z`).has(line(5, longest))).toBe(true);
});

test("a match keeps the colours under it", () => {
  const { text, spans: all } = new Ansi().line(`one ${ESC}[31mred${ESC}[0m two`);
  const found = pieces({ text, ...(all ? { spans: all } : {}) }, new Search("e red t").ranges(text));
  expect(found.map((piece) => [piece.text, piece.found])).toEqual([
    ["on", false],
    ["e ", true],
    ["red", true],
    [" t", true],
    ["wo", false],
  ]);
  expect(found[2]?.span?.look.color).toBeDefined();
  expect(pieces({ text: "plain" }, [])).toEqual([{ text: "plain", found: false }]);
  expect(pieces({ text, ...(all ? { spans: all } : {}) }, [], 5).map((piece) => piece.text)).toEqual([
    "one ",
    "r",
  ]);
});

test("next and previous go around the ends", () => {
  const matches = [line(3, ""), line(7, ""), line(9, "")];
  expect(step(matches, null, 1)?.seq).toBe(3);
  expect(step(matches, null, -1)?.seq).toBe(9);
  expect(step(matches, 3, 1)?.seq).toBe(7);
  expect(step(matches, 9, 1)?.seq).toBe(3);
  expect(step(matches, 3, -1)?.seq).toBe(9);
  expect(step(matches, 5, -1)?.seq).toBe(3); // the match that was current is gone
  expect(step([], 5, 1)).toBeUndefined();
});

test("an address leads to a place, and nothing but a name to a channel", () => {
  const places: Place[] = [
    { kind: "container", name: "web-1.a_b", events: false },
    { kind: "container", name: "web", events: true },
    { kind: "events" },
    { kind: "group", name: "/aws/lambda/todos-dev" },
    { kind: "none" },
  ];
  for (const place of places) expect(placeOf(hashOf(place))).toEqual(place);
  expect(places.slice(0, 4).map((place) => channelOf(place as never))).toEqual([
    "docker:logs:web-1.a_b",
    "docker:events:web",
    "docker:events",
    "logs:/aws/lambda/todos-dev",
  ]);
  for (const hash of [
    "",
    "#todos",
    "#logs/container/",
    "#logs/container/x",
    "#logs/container/..%2Finfo",
    "#logs/container/a:b",
    "#logs/group/a%23b",
    "#logs/group/%E0%A4%A",
    "#logsx",
    "#logs/other/a",
  ])
    expect(placeOf(hash), hash).toEqual({ kind: "none" });
});
