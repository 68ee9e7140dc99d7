// The browser behind the pictures and the tests: Debian's Chromium (or CHROMIUM=/path) without its calls to elsewhere, the verbs of a visitor,
// and pictures that are checked by axe on the way. What is wrong is collected in `complaints`; callers fail when there is any.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

export const CONNECTED = '[data-testid="connection-state"][data-state="connected"]';
export const WIDE = { width: 1440, height: 900 };
const NARROW = { width: 390, height: 844 };
const SCHEMES = ["light", "dark"];
/** How long anything on the page may take, milliseconds: a machine that stands still for seconds, race detectors, and backoff included. */
export const PATIENCE = 60_000;
/** A page is still when nothing of it has changed for so many frames; one on which something always moves is waited for no longer than STILL_MOST. */
const STILL_FRAMES = 4;
const STILL_MOST = 1_000;

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const complaints = [];

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });

/**
 * A page of a new visitor, or of `context`'s; `room` is the chat room that it opens. Errors on its console are complaints, except those that `expected` matches: what the browser
 * itself says of requests that somebody made fail.
 */
export async function visit(browser, name, { context, expected, room, viewport = WIDE, ...options } = {}) {
  const own = context ?? (await browser.newContext({ viewport, ...options }));
  own.setDefaultTimeout(PATIENCE);
  if (room)
    await own.addInitScript((name) => {
      localStorage.setItem("tideline.rooms", name);
      localStorage.setItem("tideline.room", name);
    }, room);
  const page = await own.newPage();
  page.on("console", (message) => {
    const text = `${message.text()} ${message.location().url}`;
    if (["error", "warning"].includes(message.type()) && !expected?.test(text))
      complaints.push(`console of ${name}: ${text}`);
  });
  page.on("pageerror", (error) => complaints.push(`error in ${name}: ${error.stack}`));
  return page;
}

/** What Chromium reports of a server or a network that is away. */
export const AWAY =
  /ERR_(INTERNET_DISCONNECTED|NETWORK_CHANGED|FAILED|CONNECTION_\w+|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)|WebSocket connection to .* failed|closed before the connection is established|status of 50[234]/;

export const connected = (page, options) => page.locator(CONNECTED).waitFor(options);
export const state = (page, name) =>
  page.locator(`[data-testid="connection-state"][data-state="${name}"]`).waitFor();
export const nodeOf = (page) => page.getByTestId("node-id").innerText();
export const todo = (page, title) => page.getByTestId("todo-item").filter({ hasText: title });
export const line = (page, text) => page.getByTestId("chat-message").filter({ hasText: text });
export const titles = (page) => page.locator(".todo-title").allInnerTexts();
/** All changes of todos that the page shows have reached the server: a reload loses none. */
export const saved = (page) =>
  page.waitForFunction(() => !document.querySelector('[data-testid="todo-item"][data-pending="true"]'));

/** Repeats a check of what the page shows until it holds; its last complaint is the failure. What was told is drawn a moment later. */
export async function holds(check) {
  for (const end = Date.now() + PATIENCE; ; await new Promise((done) => setTimeout(done, 50))) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

export async function add(page, title) {
  await page.getByTestId("todo-input").fill(title);
  await page.getByTestId("todo-input").press("Enter");
}

export async function say(page, text) {
  await page.getByTestId("chat-input").fill(text);
  await page.getByTestId("chat-input").press("Enter");
}

/** Shows a panel where only one has room; where all have, nothing changes. */
export const tab = (page, name) =>
  page.evaluate((hash) => {
    location.hash = hash;
  }, name);

/** Scrolls the list of todos from end to end, where `last` is. Answers the most rows that were in the document, and the longest frame in milliseconds. */
export const scrollThrough = (page, last) =>
  page.evaluate(
    async ({ last, most }) => {
      const box = document.querySelector(".todo-scroll");
      const seen = { rows: 0, longest: 0, last: "" };
      let before = performance.now();
      for (let step = 0; step <= 60; step++) {
        box.scrollTop = (box.scrollHeight * step) / 60;
        await new Promise(requestAnimationFrame);
        seen.rows = Math.max(seen.rows, box.querySelectorAll('[data-testid="todo-item"]').length);
        seen.longest = Math.max(seen.longest, Math.round(performance.now() - before));
        before = performance.now();
      }
      // Rows are measured when they come, and the end is where it is then.
      for (const end = performance.now() + most; performance.now() < end && seen.last !== last; ) {
        await new Promise(requestAnimationFrame);
        seen.last = box.querySelector(".todo:last-child .todo-title")?.textContent ?? "";
      }
      box.scrollTop = 0;
      return seen;
    },
    { last, most: PATIENCE },
  );

/**
 * Takes a state in both themes at 1440 and 390 px into `folder`, lets axe look at each, and complains of what is wider than its window, at
 * 320 and 1000 px too. `passing` states last a moment only: all pictures first, then axe on what is left.
 */
export async function picture(page, folder, name, { passing = false } = {}) {
  for (const viewport of [WIDE, NARROW]) {
    for (const colorScheme of SCHEMES) {
      await dress(page, viewport, colorScheme);
      await page.screenshot({ path: `${folder}/${name}-${viewport.width}-${colorScheme}.png` });
      if (!passing) await examine(page, `${name}-${viewport.width}-${colorScheme}`);
    }
  }
  for (const width of passing ? [] : [320, 1000]) {
    await dress(page, { width, height: 800 }, "light");
    await fits(page, `${name}-${width}`);
  }
  await dress(page, WIDE, "light");
  if (passing) await examine(page, name);
}

/** Gives the page a size and a theme, and waits until it has taken them on. */
async function dress(page, viewport, colorScheme) {
  await page.setViewportSize(viewport);
  await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
  // Measured rows and the charts follow a frame or two after the window; colours, when their transitions have ended.
  await page.waitForFunction(
    ([width, scheme]) => innerWidth === width && matchMedia(`(prefers-color-scheme: ${scheme})`).matches,
    [viewport.width, colorScheme],
  );
  await page.evaluate(
    async ([frames, most]) => {
      const moving = document.getAnimations().filter((a) => a instanceof CSSTransition);
      await Promise.allSettled(moving.map((a) => a.finished));
      const end = performance.now() + most;
      for (let same = 0, before = ""; same < frames && performance.now() < end; ) {
        await new Promise(requestAnimationFrame);
        const now = document.body.innerHTML;
        same = now === before ? same + 1 : 0;
        before = now;
      }
    },
    [STILL_FRAMES, STILL_MOST],
  );
}

async function examine(page, name) {
  await fits(page, name);
  if (!(await page.evaluate("'axe' in window"))) await page.evaluate(axe);
  const found = await page.evaluate(
    `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(v => v.id + ": " + v.nodes.map(n => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join(" | ")))`,
  );
  for (const violation of found) complaints.push(`axe on ${name}: ${violation}`);
}

async function fits(page, name) {
  const over = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
  if (over > 0) complaints.push(`${name}: ${over} px wider than the window`);
}
