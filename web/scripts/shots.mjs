// Pictures of the page in its states, both themes, two widths; axe and the console are checked on the way.
// Usage: node scripts/shots.mjs URL FOLDER. Needs Debian's Chromium, or CHROMIUM=/path.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const url = process.argv[2] ?? "http://localhost:8080";
const folder = process.argv[3] ?? "../test/artifacts/page";
mkdirSync(folder, { recursive: true });
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const only = process.argv[4];
let problems = 0;
const say = (text) => process.stdout.write(`${text}\n`);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
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
for (const width of [1440, 390]) {
  for (const colorScheme of ["light", "dark"]) {
    if (only && only !== `${width}-${colorScheme}`) continue;
    await scenario(width, colorScheme);
  }
}
await browser.close();
process.exit(problems > 0 ? 1 : 0);

async function scenario(width, colorScheme) {
  const height = width > 800 ? 900 : 844;
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme,
    deviceScaleFactor: 1,
    bypassCSP: false,
  });
  const page = await open(context, "page");
  const wide = width > 1000;
  const shot = async (name) => {
    await page.waitForTimeout(350);
    await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png` });
    const found = await page.evaluate(
      `${axe}; axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(v => v.id + ": " + v.nodes.map(n => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join(" | ")))`,
    );
    for (const violation of found) {
      problems++;
      say(`axe ${name}-${width}-${colorScheme}: ${violation}`);
    }
  };
  const tab = async (name) => {
    if (!wide) await page.click(`.tabs a[data-tab="${name}"]`);
  };
  await page.goto(url);
  await page.waitForSelector('[data-testid="connection-state"][data-state="connected"]');
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
    const expected = /ERR_INTERNET_DISCONNECTED|ERR_NETWORK_CHANGED/.test(message.text());
    if (!["error", "warning"].includes(message.type()) || expected) return;
    problems++;
    say(`console ${name}: ${message.text()}`);
  });
  page.on("pageerror", (error) => {
    problems++;
    say(`error ${name}: ${error.stack}`);
  });
  return page;
}
