// The node under the page is killed, and the next one drained: the page is on another one, and has everything.
import assert from 'node:assert/strict';
import { AWAY, add, connected, holds, line, nodeOf, saved, say, titles, todo, visit } from '../../web/scripts/driver.mjs';
import { ask, origin, play, step } from './scene.mjs';

await play(async (browser) => {
  const page = await visit(browser, 'page', { room: 'nodes', expected: AWAY });
  await page.goto(origin);
  const friend = await visit(browser, 'friend', { room: 'nodes', expected: AWAY });
  await friend.goto(origin);
  await Promise.all([connected(page), connected(friend)]);
  const said = [];
  const speak = async (text) => {
    said.push(text);
    await say(friend, text);
    await line(friend, text).and(friend.locator('[data-status=sent]')).waitFor();
  };
  const elsewhere = (one, old) =>
    one.waitForFunction((id) => {
      const now = document.querySelector('[data-testid=node-id]')?.textContent;
      return now && now !== id && document.querySelector('[data-testid=connection-state]').dataset.state === 'connected';
    }, old);
  const leaves = async (verb) => {
    const old = await nodeOf(page);
    await speak(`before the ${verb}`);
    await add(page, `todo before the ${verb}`);
    await todo(page, `todo before the ${verb}`).waitFor();
    await line(page, `before the ${verb}`).waitFor();
    await ask(verb, old);
    // The friend may have been there too, and hears of it in its own time.
    await Promise.all([elsewhere(page, old), elsewhere(friend, old)]);
    await speak(`after the ${verb}`);
    await line(page, `after the ${verb}`).waitFor();
    await add(page, `todo after the ${verb}`);
    const fresh = await nodeOf(page);
    await page.getByText(`Now on ${fresh}`).first().waitFor();
    step(`${verb}: from ${old} to ${fresh}`);
    return old;
  };
  const first = await leaves('kill');
  await ask('start', first);
  await leaves('drain');
  await holds(async () => assert.deepEqual(await page.locator('.message-text').allInnerTexts(), said, 'every line once, in order'));
  const all = ['todo after the drain', 'todo before the drain', 'todo after the kill', 'todo before the kill'];
  await holds(async () => assert.deepEqual(await titles(page), all));
  await saved(page);
  await page.reload();
  await holds(async () => assert.deepEqual(await titles(page), all, 'and so says the server'));
});
