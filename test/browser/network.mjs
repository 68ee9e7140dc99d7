// The network under the page: cut and restored, then the browser itself offline. Nothing is missed, nothing comes twice, nothing waits in secret.
import assert from 'node:assert/strict';
import { AWAY, add, connected, holds, line, picture, say, state, titles, visit } from '../../web/scripts/driver.mjs';
import { artifacts, ask, env, origin, play, step } from './scene.mjs';

const sent = (page, text) => line(page, text).and(page.locator('[data-status=sent]')).waitFor();

await play(async (browser) => {
  const page = await visit(browser, 'page', { room: 'network', expected: AWAY });
  await page.goto(env.CABLE); // the same system, through a cable that the test can cut
  const friend = await visit(browser, 'friend', { room: 'network' });
  await friend.goto(origin);
  await Promise.all([connected(page), connected(friend)]);
  await add(page, 'before the cut');
  await say(page, 'before the cut');
  await line(friend, 'before the cut').waitFor();
  await sent(page, 'before the cut');

  await ask('cut');
  await state(page, 'reconnecting');
  await page.getByText('what you miss is replayed').waitFor();
  await picture(page, artifacts, 'reconnecting');
  for (const text of ['one', 'two', 'three']) {
    await say(friend, `${text} while away`);
    await sent(friend, `${text} while away`);
  }
  await page.getByTestId('chat-input').fill('typed while away');
  await page.getByTestId('chat-input').press('Enter');
  await ask('mend');
  await connected(page);
  await page.getByText('Recovered 3 missed messages').waitFor();
  const all = ['before the cut', 'one while away', 'two while away', 'three while away'];
  await holds(async () => assert.deepEqual(await page.locator('.message-text').allInnerTexts(), all, 'in order, each once'));
  assert.equal(await page.getByTestId('chat-input').inputValue(), 'typed while away', 'what was typed is still in the field');
  step('a cut cable: recovered in order, each once; what was typed stays in its field');

  const writes = [];
  page.on('request', (request) => request.method() !== 'GET' && /\/api\/(todos|tasks)/.test(request.url()) && writes.push(request.url()));
  await page.context().setOffline(true);
  await state(page, 'offline');
  await page.locator('[data-testid=todo-input][readonly]').waitFor(); // no todo can be typed
  await page.getByTestId('todo-input').press('Enter');
  await page.getByTestId('chat-input').press('Enter');
  await holds(async () => {
    for (const box of await page.getByTestId('todo-item').getByRole('checkbox').all()) assert.ok(await box.isDisabled());
    for (const name of [/^Delete before/, /^Edit before/, 'Clear done', 'Add', 'Send'])
      assert.ok(await page.getByRole('button', { name, exact: typeof name === 'string' }).isDisabled(), `${name} is off`);
  });
  await page.context().setOffline(false);
  await connected(page);
  await say(friend, 'the last one');
  await line(page, 'the last one').waitFor();
  assert.deepEqual(writes, [], 'nothing was sent later that was asked for offline');
  assert.equal(await line(friend, 'typed while away').count(), 0);
  await holds(async () => assert.deepEqual(await titles(page), ['before the cut']));
  await connected(page);
  await page.getByTestId('chat-input').press('Enter');
  await line(friend, 'typed while away').waitFor();
  step('offline: read only, and nothing was queued');
});
