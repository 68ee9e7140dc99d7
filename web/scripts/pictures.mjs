// The pictures of the documentation: the page in both themes, and a recovery in three steps. Needs a running system with a fresh DATA_DIR.
// With an operator's link, and containers under the system (DOCKER_HOST), those of the view of logs alone: of the first container.
// Usage: npm run pictures -- http://localhost:8080 ../docs/pictures [OPERATOR-URL]
import { mkdirSync } from "node:fs";
import { CONNECTED, launch } from "./driver.mjs";

const [url = "http://localhost:8080", folder = "../docs/pictures", operator] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const browser = await launch();
const viewport = { width: 1280, height: 800 };

async function open(address = url) {
  const context = await browser.newContext({ viewport });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  await page.goto(address);
  await page.waitForSelector(CONNECTED);
  return page;
}

async function say(page, text) {
  await page.fill('[data-testid="chat-input"]', text);
  await page.press('[data-testid="chat-input"]', "Enter");
  await page.waitForTimeout(150);
}

async function picture(page, name) {
  await page.mouse.move(2, 400);
  await page.evaluate(() => document.activeElement?.blur());
  await page.waitForTimeout(400);
  await page.screenshot({ path: `${folder}/${name}.png` });
  process.stdout.write(`${folder}/${name}.png\n`);
}

if (operator) {
  const page = await open(operator);
  await page.click('[href="#logs"]');
  await page.click('[data-testid="container"] >> nth=0');
  await page.waitForSelector('[data-testid="log-line"] >> nth=20');
  await page.fill('[data-testid="log-search"]', "no answer");
  await picture(page, "logs-light");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture(page, "logs-dark");
  await browser.close();
  process.exit();
}

const page = await open();
const friend = await open();
for (const title of [
  "Oil the winch",
  "Ask Ines for the chart",
  "Replace the mooring line",
  "Call the harbour master",
  "Book the ferry",
]) {
  await page.fill('[data-testid="todo-input"]', title);
  await page.keyboard.press("Enter");
}
const tick = (title) =>
  page.locator('[data-testid="todo-item"]', { hasText: title }).locator(".tick").click();
await tick("Oil the winch");
await tick("Ask Ines for the chart");
await page.locator(".todo-title", { hasText: "Book the ferry" }).click();
await page.fill(".date input", new Date().toISOString().slice(0, 10));
await page.click(".editor .primary");
await say(page, "Is anybody out there?");
await say(friend, "Aye. South-west, four to five, and the causeway opens at ten.");
await say(friend, "Bring the long line.");
await say(page, "Coming over at ten, then.");
// A minute of ordinary traffic, so that the chart has something to show.
for (let i = 0; i < 24; i++) {
  await tick(i % 2 === 0 ? "Replace the mooring line" : "Call the harbour master");
  await page.waitForTimeout(1_800);
}
await picture(page, "page-light");
await page.emulateMedia({ colorScheme: "dark" });
await picture(page, "page-dark");
await page.emulateMedia({ colorScheme: "light" });

await page.click("text=Drop for 5 s");
await page.waitForSelector('[data-state="paused"]');
await picture(page, "recovery-1-dropped");
await say(friend, "Wind is backing.");
await say(friend, "Make that half past ten.");
await say(friend, "And bring tea.");
await picture(friend, "recovery-2-meanwhile");
await page.waitForSelector("text=/Recovered 3 missed/");
await picture(page, "recovery-3-recovered");
await browser.close();
