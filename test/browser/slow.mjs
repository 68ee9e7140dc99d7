// One tab's script stands still for seconds while its channel is flooded. The other tab doesn't wait for it, and it catches up afterwards.
import assert from 'node:assert/strict';
import { connected, holds, line, visit } from '../../web/scripts/driver.mjs';
import { ask, origin, play, step } from './scene.mjs';

const STILL = 12_000; // milliseconds; past the 10 s after which a node gives up on a client that takes nothing

await play(async (browser) => {
  const slow = await visit(browser, 'slow', { room: 'slow', expected: /Synchronous XMLHttpRequest/ });
  const quick = await visit(browser, 'quick', { room: 'slow' });
  for (const page of [slow, quick]) {
    await page.goto(origin);
    await connected(page);
    await page.getByText('2 here').or(page.getByText('1 here')).first().waitFor();
  }
  // It waits for an answer, and runs nothing meanwhile.
  let go;
  let still = true;
  const answered = new Promise((done) => { go = done; });
  const asked = new Promise((done) => {
    void slow.route('**/standing-still', async (route) => {
      done();
      await answered;
      await route.fulfill({ status: 204 });
    });
  });
  const blocked = slow
    .evaluate(() => {
      const request = new XMLHttpRequest();
      request.open('GET', '/standing-still', false);
      request.send();
    })
    .then(() => { still = false; });
  await asked;
  const until = Date.now() + STILL;
  const last = await ask('flood', 'chat:slow');
  await line(quick, last).waitFor();
  assert.ok(still, 'the quick tab has the last message while the slow one stands still');
  step('the quick tab has everything while the other one stands still');
  await quick.waitForTimeout(Math.max(0, until - Date.now())); // the time is what is asked for
  go();
  await blocked;
  await line(slow, last).waitFor();
  await connected(slow);
  const texts = async (page) => page.locator('.message-text').allInnerTexts();
  let shared;
  await holds(async () => {
    const [a, b] = [await texts(quick), await texts(slow)];
    shared = Math.min(a.length, b.length);
    assert.ok(shared > 0);
    assert.deepEqual(b.slice(-shared), a.slice(-shared), 'the same lines in the same order');
  });
  step(`the slow tab has caught up: ${shared} lines, the same in both`);
});
