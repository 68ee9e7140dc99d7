// Pictures of the page in its states, both themes, two widths; axe and the console are checked on the way.
// Usage: node scripts/shots.mjs URL FOLDER. Needs Debian's Chromium, or CHROMIUM=/path.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { CONNECTED, launch } from "./chromium.mjs";

const url = process.argv[2] ?? "http://localhost:8080";
const folder = process.argv[3] ?? "../test/artifacts/page";
mkdirSync(folder, { recursive: true });
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const only = process.argv[4];
const IDEAS = [
  "Check the bilge",
  "Order rope",
  "Paint the buoy",
  "Read the log",
  "Call the pilot",
  "Fold the sails",
  "Test the flares",
];
let problems = 0;
const say = (text) => process.stdout.write(`${text}\n`);
const complain = (text) => {
  problems++;
  say(text);
};

const browser = await launch();
for (const width of [1440, 390]) {
  for (const colorScheme of ["light", "dark"]) {
    if (only && only !== `${width}-${colorScheme}`) continue;
    await scenario(width, colorScheme);
    await states(width, colorScheme);
  }
}
if (!only) for (const width of [320, 1000]) await states(width, "light");
await browser.close();
process.exit(problems > 0 ? 1 : 0);

async function start(width, colorScheme) {
  const height = width > 800 ? 900 : 844;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme });
  const page = await open(context, `${width}-${colorScheme}`);
  const shot = async (name, settle = 350) => {
    await page.waitForTimeout(settle);
    await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png` });
    const found = await page.evaluate(
      `${axe}; axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(v => v.id + ": " + v.nodes.map(n => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join(" | ")))`,
    );
    for (const violation of found) complain(`axe ${name}-${width}-${colorScheme}: ${violation}`);
    const over = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
    if (over > 0) complain(`${name}-${width}-${colorScheme}: ${over} px wider than the window`);
  };
  const tab = async (name) => {
    const link = page.locator(`.tabs a[data-tab="${name}"]`);
    if (await link.isVisible()) await link.click();
  };
  return { context, page, shot, tab, wide: width >= 1200 };
}

// States that need the server to misbehave, or much data.
async function states(width, colorScheme) {
  const { context, page, shot, tab } = await start(width, colorScheme);

  await page.route("**/api/session", (route) => route.abort());
  await page.goto(url);
  await page.waitForSelector("text=can’t be reached");
  await shot("a-unreachable");
  await page.unroute("**/api/session");

  let release = () => {};
  const held = new Promise((done) => {
    release = done;
  });
  await page.route("**/api/todos?**", async (route) => {
    await held;
    await route.continue();
  });
  // It tries again by itself, so the button may be gone before it is pressed.
  await page.click("text=Try now", { timeout: 2000 }).catch(() => {});
  await page.waitForSelector(".skeleton");
  await shot("b-first-load");
  release();
  await page.waitForSelector("text=Nothing to do yet");
  await page.unroute("**/api/todos?**");

  const rows = Array.from({ length: 5000 }, (_, i) => `${IDEAS[i % IDEAS.length]} ${i + 1},${i % 5 === 0}`);
  rows.splice(2, 0, ",false");
  const file = {
    name: "todos.csv",
    mimeType: "text/csv",
    buffer: Buffer.from(`title,done\n${rows.slice(0, 5000).join("\n")}\n`),
  };
  await page.setInputFiles('[data-testid="import-file"]', file);
  await page.waitForSelector('[data-testid="task"][data-state="running"]');
  await shot("c-import", 0);
  await page.waitForSelector('[data-testid="task"][data-state="completed"]', { timeout: 60_000 });
  await page.waitForSelector('[data-testid="todo-item"]');
  await page.click("text=Which?");
  await shot("d-imported");
  const longest = await page.evaluate(scrollThrough);
  say(`scrolling 5,000 todos at ${width} px: longest frame ${longest} ms`);
  await page.click(".task .icon-button");

  await page.fill('[data-testid="todo-input"]', "Meet at the slipway");
  await page.keyboard.press("Enter");
  const row = page.locator('[data-testid="todo-item"]', { hasText: "Meet at the slipway" });
  await row.locator(".todo-text").click();
  await page.fill(".editor .title-field", "Meet at the slipway at nine");
  const second = await context.newPage();
  await second.goto(url);
  await second.locator('[data-testid="todo-item"] .todo-text', { hasText: "Meet at the slipway" }).click();
  await second.fill(".editor .title-field", "Meet at the lighthouse");
  await second.keyboard.press("Enter");
  await page.bringToFront();
  await page.waitForSelector(".conflict");
  await shot("e-conflict");
  await page.click("text=Keep what I typed");
  await page.click(".editor .primary");
  await page.locator(".todo-title", { hasText: "Meet at the slipway at nine" }).waitFor();
  await second.close();

  await page.route("**/api/todos/*", (route) =>
    route.fulfill({
      status: 503,
      contentType: "application/problem+json",
      body: '{"title":"Service Unavailable","status":503,"detail":"The store is busy; try again."}',
    }),
  );
  await page.locator('[data-testid="todo-item"]').first().locator(".tick").click();
  await page.waitForSelector('.toast[data-tone="danger"]');
  await shot("f-refused");
  await page.unroute("**/api/todos/*");

  await tab("chat");
  await context.setOffline(true);
  await page.waitForSelector('[data-state="offline"]');
  await shot("g-chat-offline");
  await context.setOffline(false);
  await page.waitForSelector(CONNECTED, { timeout: 30_000 });
  await tab("todos");
  await page.locator("h2", { hasText: "Todos" }).click();
  await page.keyboard.press("?");
  await page.waitForSelector("#help-title");
  await shot("h-keyboard");
  await page.keyboard.press("Escape");

  await page.route("**/api/session/token", (route) => route.fulfill({ status: 401, body: "{}" }));
  await page.route("**/api/todos/**", (route) => route.fulfill({ status: 401, body: "{}" }));
  await page.locator('[data-testid="todo-item"]').first().locator(".tick").click();
  await page.waitForSelector("text=Your session has ended");
  await shot("i-expired");
  await context.close();
}

/** Runs in the page: scrolls the list from end to end, answers the longest frame in milliseconds. */
async function scrollThrough() {
  const box = document.querySelector(".todo-scroll");
  let longest = 0;
  let last = performance.now();
  for (let step = 0; step <= 60; step++) {
    box.scrollTop = (box.scrollHeight * step) / 60;
    await new Promise(requestAnimationFrame);
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }
  box.scrollTop = 0;
  return Math.round(longest);
}

async function scenario(width, colorScheme) {
  const { context, page, shot, tab, wide } = await start(width, colorScheme);
  await page.goto(url);
  await page.waitForSelector(CONNECTED);
  await shot("1-empty");
  const add = async (title) => {
    await page.fill('[data-testid="todo-input"]', title);
    await page.keyboard.press("Enter");
  };
  for (const title of [
    "Book the ferry",
    "Call the harbour master about the berth",
    "Write down what the tide tables say for Saturday, and whether the causeway is dry long enough for everybody to cross before noon",
    "Oil the winch",
    "Replace the mooring line",
    "Pay the berth",
    "Ask Ines for the chart",
    "Charge the radio",
    "Sharpen the knife",
  ])
    await add(title);
  await page.click('[data-testid="todo-item"]:nth-child(3) .tick');
  await page.click('[data-testid="todo-item"]:nth-child(6) .tick');
  const due = (days) => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10);
  for (const [row, days] of [
    [1, 0],
    [2, 3],
    [4, -2],
  ]) {
    await page.click(`[data-testid="todo-item"]:nth-child(${row}) .todo-text`);
    await page.fill(".editor .date input", due(days));
    if (row === 2) await page.fill(".editor .note-field", "Pier 4, before the harbour office closes");
    if (row === 4) await shot("2-editing");
    await page.click(".editor .primary");
    await page.waitForSelector(".editor", { state: "detached" });
  }
  await page.mouse.move(5, 300);

  const other = await browser.newContext({ viewport: { width: 1000, height: 800 } });
  const friend = await open(other, "friend");
  await friend.goto(url);
  await friend.waitForSelector('[data-testid="connection-state"][data-state="connected"]');
  const says = async (who, text) => {
    await who.fill('[data-testid="chat-input"]', text);
    await who.press('[data-testid="chat-input"]', "Enter");
  };
  await tab("chat");
  await says(page, "Is anybody out there?");
  await page.waitForSelector('[data-testid="chat-message"][data-status="sent"]');
  await says(friend, "Aye. Wind is south-west, four to five, and the causeway opens at ten.");
  await says(friend, "Bring the long line.");
  await page.waitForSelector("text=Bring the long line.");
  await says(page, "Coming over at ten, then.");
  await page.waitForTimeout(600);
  await shot("3-chat");
  await tab("todos");
  await shot("4-todos");
  await page.hover('[data-testid="todo-item"]:nth-child(5)');
  await page.click('[data-testid="todo-item"]:nth-child(5) .row-action');
  await shot("5-undo");
  await page.click(".toast-action");
  await tab("edge");
  await page.click("text=Drop for 5 s");
  await shot("6-dropped");
  await says(friend, "One.");
  await says(friend, "Two.");
  await page.waitForSelector('[data-testid="connection-state"][data-state="connected"]', { timeout: 15_000 });
  await page.waitForSelector("text=/Recovered \\d+ missed/");
  await page.waitForTimeout(1500);
  await shot("7-recovered");
  await tab("todos");
  await page.click(wide ? ".top .wide-only" : ".top .narrow-only");
  await page.waitForSelector(".qr");
  await shot("8-link");
  await page.keyboard.press("Escape");
  await context.setOffline(true);
  await page.waitForSelector('[data-state="offline"]');
  await shot("9-offline");
  await context.setOffline(false);
  await context.close();
  await other.close();
}

async function open(context, name) {
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.on("console", (message) => {
    // What the browser itself says of requests that this script made fail.
    const expected =
      /ERR_INTERNET_DISCONNECTED|ERR_NETWORK_CHANGED|ERR_FAILED|closed before the connection is established|status of (401|503|412)/.test(
        message.text(),
      );
    if (["error", "warning"].includes(message.type()) && !expected)
      complain(`console ${name}: ${message.text()}`);
  });
  page.on("pageerror", (error) => {
    complain(`error ${name}: ${error.stack}`);
  });
  return page;
}
