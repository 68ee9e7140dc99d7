// One tab's script stands still for seconds while its channel is flooded. The other tab doesn't wait for it, and it catches up afterwards.
import assert from 'node:assert/strict';
import { connected, line, visit } from '../../web/scripts/driver.mjs';
import { ask, origin, play, step } from './scene.mjs';

const STILL = 12_000; // milliseconds; past the 10 s after which a node gives up on a client that takes nothing

await play(async (browser) => {
  const slow = await visit(browser, 'slow', { room: 'slow' });
  const quick = await visit(browser, 'quick', { room: 'slow' });
  for (const page of [slow, quick]) {
    await page.goto(origin);
    await connected(page);
    await page.getByText('2 here').or(page.getByText('1 here')).first().waitFor();
  }
  let still = true;
  const blocked = slow
    .evaluate((ms) => {
      const until = performance.now() + ms;
      while (performance.now() < until);
    }, STILL)
    .then(() => {
      still = false;
    });
  const last = await ask('flood', 'chat:slow');
  await line(quick, last).waitFor();
  assert.ok(still, 'the quick tab has the last message while the slow one stands still');
  step('the quick tab has everything while the other one stands still');
  await blocked;
  await line(slow, last).waitFor();
  await connected(slow);
  const texts = async (page) => page.locator('.message-text').allInnerTexts();
  const [a, b] = [await texts(quick), await texts(slow)];
  const shared = Math.min(a.length, b.length);
  assert.ok(shared > 0);
  assert.deepEqual(b.slice(-shared), a.slice(-shared), 'the same lines in the same order');
  step(`the slow tab has caught up: ${shared} lines, the same in both`);
});
