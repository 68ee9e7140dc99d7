// Redis goes away under the page and comes back. Todos can be read and written all along; what was written reaches the other device afterwards.
import assert from 'node:assert/strict';
import { AWAY, add, connected, holds, line, nodeOf, picture, say, titles, todo, visit } from '../../web/scripts/driver.mjs';
import { artifacts, ask, origin, play, step } from './scene.mjs';

await play(async (browser) => {
  const page = await visit(browser, 'page', { room: 'redis', expected: AWAY });
  await page.goto(origin);
  await connected(page);
  const link = await page.evaluate(async () => {
    const { token } = await (await fetch('/api/session/token', { method: 'POST' })).json();
    const headers = { Authorization: `Bearer ${token}` };
    return (await (await fetch('/api/session/link', { method: 'POST', headers })).json()).url;
  });
  const phone = await visit(browser, 'phone', { room: 'redis', expected: AWAY });
  await phone.goto(new URL(link, origin).href);
  await connected(phone);
  await add(page, 'before');
  await todo(phone, 'before').waitFor();
  await say(page, 'before');
  await line(phone, 'before').waitFor();
  const node = await nodeOf(page);

  await ask('redis-stop');
  await add(page, 'while Redis is away');
  await page.locator('[data-testid=todo-item][data-pending=false]').filter({ hasText: 'while Redis is away' }).waitFor();
  assert.equal(await nodeOf(page), node, 'the socket stays');
  await connected(page);
  await say(page, 'into the void');
  await page.locator('[data-testid=chat-message][data-status=failed]').waitFor();
  await picture(page, artifacts, 'redis-away');
  // A page that comes now has its todos from the functions, and says that it hears of no change.
  await phone.reload();
  await phone.getByText('other tabs and devices don’t arrive').waitFor();
  await todo(phone, 'while Redis is away').waitFor();
  await picture(phone, artifacts, 'redis-away-reload');
  step('Redis away: the socket stays, todos are saved, a message is refused and can be sent again');

  await ask('redis-start');
  await phone.getByText('other tabs and devices don’t arrive').waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Try again' }).click();
  await line(page, 'into the void').and(page.locator('[data-status=sent]')).waitFor();
  await line(phone, 'into the void').waitFor();
  await add(phone, 'after');
  await todo(page, 'after').waitFor();
  for (const one of [page, phone]) await holds(async () => assert.deepEqual(await titles(one), ['after', 'while Redis is away', 'before']));
  step('Redis back: both devices have everything');
});
