// A session that was signed out elsewhere: when its token expires the node asks for a fresh one, and the page says that there is none.
import assert from 'node:assert/strict';
import { connected, picture, visit } from '../../web/scripts/driver.mjs';
import { artifacts, ask, origin, play, step } from './scene.mjs';

await play(async (browser) => {
  // Chromium reports the refusal that is the point of this.
  const page = await visit(browser, 'page', { room: 'session', expected: /status of 401/ });
  // The real session, with a token of seconds in place of the hour's.
  await page.route('**/api/session', async (route) => {
    const response = await route.fetch();
    const session = await response.json();
    await route.fulfill({ response, json: { ...session, token: await ask('brief-token', session.user) } });
  });
  await page.goto(origin);
  await connected(page);
  await page.unroute('**/api/session');
  const user = await page.getByTestId('user-id').innerText();
  assert.equal(await page.evaluate(async () => (await fetch('/api/session', { method: 'DELETE' })).status), 204);
  await page.getByRole('heading', { name: 'Your session has ended' }).waitFor({ timeout: 45_000 });
  await picture(page, artifacts, 'session-ended');
  step('the page says that the session has ended');
  await page.getByRole('button', { name: 'Start a new session' }).click();
  await connected(page);
  assert.notEqual(await page.getByTestId('user-id').innerText(), user);
  step('a new session is a new guest');
});
