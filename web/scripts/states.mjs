// The states of the page, one after the other, each as a picture: what a visitor sees, and what a server that misbehaves makes of it.
// Runs against a system of one's own: it writes in the lobby.
import assert from "node:assert/strict";
import {
  AWAY,
  add,
  connected,
  holds,
  line,
  PATIENCE,
  picture,
  saved,
  say,
  scrollThrough,
  state,
  tab,
  titles,
  todo,
  visit,
} from "./driver.mjs";

const IDEAS = [
  "Check the bilge",
  "Order rope",
  "Paint the buoy",
  "Read the log",
  "Call the pilot",
  "Fold the sails",
  "Test the flares",
];
const TODOS = [
  "Book the ferry",
  "Call the harbour master about the berth",
  "Write down what the tide tables say for Saturday, and whether the causeway is dry long enough for everybody to cross before noon",
  "Oil the winch",
  "Replace the mooring line",
  "Pay the berth",
  "Ask Ines for the chart",
  "Charge the radio",
  "Sharpen the knife",
];
/** The browser reports each refused request; these are the ones that the states below refuse. */
const REFUSED = new RegExp(`${AWAY.source}|status of (401|403|412|503)`);
/** Rows that may be in the document at once: two windows full and the ones kept ready. */
const MOUNTED_MAX = 60;
export const MANY = 5_000;

/** Takes all states. `operator` is a link that signs in an operator, where there is one. */
export async function takeStates({ browser, url, folder, operator, step }) {
  const scene = { browser, url, folder, step };
  await ordinary(scene);
  await gates(scene);
  await many(scene);
  if (operator) await nodes(scene, operator);
}

async function ordinary({ browser, url, folder, step }) {
  const page = await visit(browser, "page", { expected: REFUSED });
  const shot = (name, options) => picture(page, folder, name, options);
  // While it is shut, a socket that is asked for stays on its way.
  let gate = Promise.resolve();
  await page.routeWebSocket(/\/connection\/websocket/, async (socket) => {
    await gate;
    socket.connectToServer();
  });
  await page.goto(url);
  await connected(page);
  await shot("empty");
  for (const title of TODOS) await add(page, title);
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
    if (row === 4) await shot("editing");
    await page.click(".editor .primary");
    await page.waitForSelector(".editor", { state: "detached" });
  }
  await page.mouse.move(5, 300);

  const friend = await visit(browser, "friend");
  await friend.goto(url);
  await connected(friend);
  await tab(page, "chat");
  await say(page, "Is anybody out there?");
  await page.waitForSelector('[data-testid="chat-message"][data-status="sent"]');
  await say(friend, "Aye. Wind is south-west, four to five, and the causeway opens at ten.");
  await say(friend, "Bring the long line.");
  await line(page, "Bring the long line.").waitFor();
  await say(page, "Coming over at ten, then.");
  await line(friend, "Coming over at ten, then.").waitFor();
  await shot("chat");
  await tab(page, "todos");
  await shot("todos");
  step("todos and chat");

  const order = await titles(page);
  // A message that has the focus stays, wherever the window's size puts it. The pointer must not come and go over it.
  const undo = (text) => page.locator(".toast", { hasText: text }).locator(".toast-action");
  await page.hover('[data-testid="todo-item"]:nth-child(5)');
  await page.click('[data-testid="todo-item"]:nth-child(5) .row-action');
  await undo("").focus();
  await page.mouse.move(5, 300);
  await shot("undo", { passing: true });
  await undo("").click();
  await holds(async () => assert.deepEqual(await titles(page), order, "undo puts a todo back where it was"));
  await page.click("text=Clear done");
  await undo("Cleared 2 todos").focus();
  await holds(async () => assert.equal((await titles(page)).length, order.length - 2));
  await page.mouse.move(5, 300);
  await shot("cleared", { passing: true });
  await undo("Cleared 2 todos").click();
  await holds(async () => assert.deepEqual(await titles(page), order, "undo puts back what was cleared"));
  await saved(page);
  await page.reload();
  await holds(async () => assert.deepEqual(await titles(page), order, "on the server too"));
  step("undo puts back");

  await tab(page, "edge");
  await connected(page);
  await line(page, "Coming over at ten, then.").waitFor();
  let open = () => {};
  gate = new Promise((done) => {
    open = done;
  });
  await page.click("text=Drop for 5 s");
  await shot("dropped", { passing: true });
  for (const text of ["One.", "Two."]) {
    await say(friend, text);
    await line(friend, text).and(friend.locator("[data-status=sent]")).waitFor();
  }
  open();
  await connected(page);
  await page.waitForSelector("text=Recovered 2 missed messages");
  await line(page, "Two.").waitFor();
  await shot("recovered");
  step("dropped and recovered");

  await tab(page, "todos");
  await page.click(".top .wide-only");
  await page.waitForSelector(".qr");
  await shot("link");
  await page.keyboard.press("Escape");
  await page.locator("h2", { hasText: "Todos" }).click();
  await page.keyboard.press("?");
  await page.waitForSelector("#help-title");
  await shot("keyboard");
  await page.keyboard.press("Escape");
  await page.context().setOffline(true);
  await state(page, "offline");
  await shot("offline");
  await tab(page, "chat");
  await shot("offline-chat");
  await page.context().close();
  await friend.context().close();
  step("dialogs and offline");
}

/** What is shown instead of the page. */
async function gates({ browser, url, folder, step }) {
  const page = await visit(browser, "gate", { expected: REFUSED });
  const shot = (name) => picture(page, folder, name);
  await page.route("**/api/session", (route) => route.abort());
  await page.goto(url);
  await page.waitForSelector("text=can’t be reached");
  await shot("unreachable");
  await page.unroute("**/api/session");
  const refuse = (problem) => (route) =>
    route.fulfill({
      status: problem.status,
      contentType: "application/problem+json",
      body: JSON.stringify(problem),
    });
  const closed = {
    type: "urn:tideline:problem:guests-disabled",
    title: "Forbidden",
    status: 403,
    detail: "",
  };
  await page.route("**/api/session", refuse(closed));
  await page.goto(url);
  await page.waitForSelector("text=This server takes no guests");
  await shot("sign-in");
  await page.unroute("**/api/session");

  let release = () => {};
  const held = new Promise((done) => {
    release = done;
  });
  await page.route("**/api/todos?**", async (route) => {
    await held;
    await route.continue();
  });
  await page.click("text=I have signed in");
  await page.waitForSelector(".skeleton");
  await shot("first-load");
  release();
  await page.waitForSelector("text=Nothing to do yet");
  await page.unroute("**/api/todos?**");
  await page.route(
    "**/api/todos?**",
    refuse({ title: "Unavailable", status: 503, detail: "The store is busy; try again." }),
  );
  await page.reload();
  await page.waitForSelector("text=The todos can’t be read");
  await shot("list-refused");
  await page.context().close();
  step("gates");
}

/** Keeps what the socket brings from a task's end on, until it is released: a small system is done before it is photographed. */
async function holdTasks(page) {
  const kept = [];
  let over = false;
  let pass = () => {};
  await page.routeWebSocket(/\/connection\/websocket/, (socket) => {
    pass = (message) => socket.send(message);
    socket.connectToServer().onMessage((message) => {
      if (!over && (kept.length > 0 || /"state":"(completed|failed)"/.test(message))) kept.push(message);
      else pass(message);
    });
  });
  return () => {
    over = true;
    for (const message of kept.splice(0)) pass(message);
  };
}

/** An import of many todos, and what needs a full list. */
async function many({ browser, url, folder, step }) {
  const page = await visit(browser, "many", { expected: REFUSED });
  const shot = (name, options) => picture(page, folder, name, options);
  const release = await holdTasks(page);
  await page.goto(url);
  await connected(page);
  await add(page, "One by hand");
  const rows = Array.from(
    { length: MANY - 1 },
    (_, i) => `${IDEAS[i % IDEAS.length]} ${i + 1},${i % 5 === 0}`,
  );
  rows.splice(2, 0, ",false"); // a row that is left out; with it the file has as many as one import takes
  await page.setInputFiles('[data-testid="import-file"]', {
    name: "todos.csv",
    mimeType: "text/csv",
    buffer: Buffer.from(`title,done\n${rows.join("\n")}\n`),
  });
  await page.waitForSelector('[data-testid="task"][data-state="running"]');
  await shot("importing", { passing: true });
  release();
  await page.waitForSelector('[data-testid="task"][data-state="completed"]', { timeout: 2 * PATIENCE });
  await page.click("text=Which?");
  await page.waitForSelector("text=4,000 open");
  await shot("imported");
  const last = rows.at(-1).split(",")[0];
  const seen = await scrollThrough(page, last);
  assert.ok(seen.rows > 0 && seen.rows <= MOUNTED_MAX, `${seen.rows} of ${MANY} rows in the document`);
  assert.equal(seen.last, last, "the end of the list is reached");
  step(`at most ${seen.rows} of ${MANY} rows in the document; longest frame ${seen.longest} ms`);
  await page.click(".task .icon-button");

  await add(page, "Meet at the slipway");
  await todo(page, "Meet at the slipway").locator(".todo-text").click();
  await page.fill(".editor .title-field", "Meet at the slipway at nine");
  const second = await visit(browser, "second", { context: page.context(), expected: REFUSED });
  await second.goto(url);
  await todo(second, "Meet at the slipway").locator(".todo-text").click();
  await second.fill(".editor .title-field", "Meet at the lighthouse");
  await second.keyboard.press("Enter");
  await page.bringToFront();
  await page.waitForSelector(".conflict");
  await shot("conflict");
  await page.click("text=Keep what I typed");
  await page.click(".editor .primary");
  await page.locator(".todo-title", { hasText: "Meet at the slipway at nine" }).waitFor();
  await second.close();
  await page.click("text=Clear done");
  await page.waitForSelector("#clear-title");
  await shot("clear-many");
  await page.click("text=Keep them");
  step("conflict");

  const problem = '{"title":"Service Unavailable","status":503,"detail":"The store is busy; try again."}';
  await page.route("**/api/todos/*", (route) =>
    route.fulfill({ status: 503, contentType: "application/problem+json", body: problem }),
  );
  await page.locator('[data-testid="todo-item"]').first().locator(".tick").click();
  await page.waitForSelector('.toast[data-tone="danger"]');
  await page.focus('.toast[data-tone="danger"] .icon-button');
  await shot("refused", { passing: true });
  await page.unroute("**/api/todos/*");

  await page.route("**/api/session/token", (route) => route.fulfill({ status: 401, body: "{}" }));
  await page.route("**/api/todos/**", (route) => route.fulfill({ status: 401, body: "{}" }));
  await page.locator('[data-testid="todo-item"]').first().locator(".tick").click();
  await page.waitForSelector("text=Your session has ended");
  await shot("expired");
  await page.context().close();
  step("refused and expired");
}

/** The operators' view. */
async function nodes({ browser, url, folder, step }, operator) {
  const page = await visit(browser, "operator");
  await page.goto(operator);
  await connected(page);
  await page.goto(`${url}/#nodes`);
  await page.waitForSelector('[data-testid="fleet-node"][data-state="ready"]');
  await picture(page, folder, "nodes");
  await page.context().close();
  step("nodes");
}
