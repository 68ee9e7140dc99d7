// Two browser contexts of one user, the second signed in by the link, on different nodes: a todo and a chat line cross over.
// Prints a line per step; the first that fails ends it with status 1. Pictures go to ARTIFACTS either way.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const { ORIGIN, CHROMIUM, ARTIFACTS } = process.env;

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});

const complaints = []; // whatever a page writes to its console as an error
const pages = new Map();

async function device(name, viewport) {
  const context = await browser.newContext({ viewport });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.on('console', (m) => m.type() === 'error' && complaints.push(`${name}: ${m.text()}`));
  page.on('pageerror', (e) => complaints.push(`${name}: ${e.message}`));
  pages.set(name, page);
  return page;
}

const step = (text) => console.log(text);
const connected = (page) => page.locator('[data-testid=connection-state][data-state=connected]').waitFor();
const node = (page) => page.getByTestId('node-id').innerText();
const todo = (page, title) => page.getByTestId('todo-item').filter({ hasText: title });
const line = (page, text) => page.getByTestId('chat-message').filter({ hasText: text });

async function add(page, title) {
  await page.getByTestId('todo-input').fill(title);
  await page.getByTestId('todo-input').press('Enter');
}

async function say(page, text) {
  await page.getByTestId('chat-input').fill(text);
  await page.getByTestId('chat-input').press('Enter');
}

try {
  const desk = await device('desk', { width: 1440, height: 900 });
  await desk.goto(ORIGIN);
  await connected(desk);
  const user = await desk.getByTestId('user-id').innerText();
  const first = await node(desk);
  step(`desk is ${user} on ${first}`);

  await desk.getByRole('banner').getByRole('button', { name: 'Open on another device' }).click();
  await desk.waitForFunction(() => document.querySelector('[data-testid=link-url]')?.value);
  const link = await desk.getByTestId('link-url').inputValue();
  assert.match(link, /^http:.*\/api\/session\/link\//);
  await desk.keyboard.press('Escape');

  const laptop = await device('laptop', { width: 1280, height: 800 });
  await laptop.goto(link);
  await connected(laptop);
  assert.equal(await laptop.getByTestId('user-id').innerText(), user, 'the link signs in as the same user');
  const second = await node(laptop);
  assert.notEqual(second, first, 'two browsers meet two nodes');
  step(`laptop is ${user} on ${second}`);

  await add(desk, 'water the plants');
  await todo(laptop, 'water the plants').waitFor();
  step('a todo created on the desk is on the laptop');
  await todo(laptop, 'water the plants').getByRole('checkbox').click();
  await desk.locator('[data-testid=todo-item][data-done=true]').filter({ hasText: 'water the plants' }).waitFor();
  step('done on the laptop is done on the desk');

  await say(laptop, 'hello from the other node');
  await line(desk, 'hello from the other node').waitFor();
  step('a chat line of the laptop is on the desk');
  await say(desk, 'hello back');
  await line(laptop, 'hello back').waitFor();
  step('and one of the desk is on the laptop');

  const stranger = await device('stranger', { width: 1280, height: 800 });
  await stranger.goto(ORIGIN);
  await connected(stranger);
  assert.notEqual(await stranger.getByTestId('user-id').innerText(), user);
  await line(stranger, 'hello back').waitFor();
  assert.equal(await stranger.getByTestId('todo-item').count(), 0, "a stranger sees nobody else's todos");
  step('a stranger has the chat and no todos of theirs');

  await desk.reload();
  await connected(desk);
  await todo(desk, 'water the plants').waitFor();
  assert.equal(await desk.getByTestId('user-id').innerText(), user);
  assert.equal(await node(desk), first, 'the cookie keeps a visitor on its node');
  step('a reload keeps user, todos and node');

  assert.deepEqual(complaints, [], 'nothing on the console, no violation of the content security policy');
} catch (error) {
  console.error(error.stack ?? error, complaints);
  process.exitCode = 1;
} finally {
  for (const [name, page] of pages) {
    await page.screenshot({ path: join(ARTIFACTS, `${name}.png`) }).catch((e) => console.error(`no picture of ${name}: ${e.message}`));
  }
  await browser.close();
}
