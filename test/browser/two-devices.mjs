// Two browser contexts of one user, the second signed in by the link, on different nodes: a todo and a chat line cross over.
import assert from 'node:assert/strict';
import { add, connected, holds, line, nodeOf, saved, say, todo, visit } from '../../web/scripts/driver.mjs';
import { origin, play, step } from './scene.mjs';

await play(async (browser) => {
  const desk = await visit(browser, 'desk');
  await desk.goto(origin);
  await connected(desk);
  const user = await desk.getByTestId('user-id').innerText();
  const first = await nodeOf(desk);
  step(`desk is ${user} on ${first}`);

  await desk.getByRole('banner').getByRole('button', { name: 'Open on another device' }).click();
  await desk.waitForFunction(() => document.querySelector('[data-testid=link-url]')?.value);
  const link = await desk.getByTestId('link-url').inputValue();
  assert.match(link, /^http:.*\/api\/session\/link\//);
  await desk.keyboard.press('Escape');

  const laptop = await visit(browser, 'laptop', { viewport: { width: 1280, height: 800 } });
  await laptop.goto(link);
  await connected(laptop);
  assert.equal(await laptop.getByTestId('user-id').innerText(), user, 'the link signs in as the same user');
  const second = await nodeOf(laptop);
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

  const stranger = await visit(browser, 'stranger');
  await stranger.goto(origin);
  await connected(stranger);
  assert.notEqual(await stranger.getByTestId('user-id').innerText(), user);
  await line(stranger, 'hello back').waitFor();
  assert.equal(await stranger.getByTestId('todo-item').count(), 0, "a stranger sees nobody else's todos");
  step('a stranger has the chat and no todos of theirs');

  await saved(desk);
  await desk.reload();
  await connected(desk);
  await todo(desk, 'water the plants').waitFor();
  assert.equal(await desk.getByTestId('user-id').innerText(), user);
  await holds(async () => assert.equal(await nodeOf(desk), first, 'the cookie keeps a visitor on its node'));
  step('a reload keeps user, todos and node');
});
