// A session that was signed out elsewhere: when its token expires the node asks for a fresh one, and the page says that there is none.
import assert from 'node:assert/strict';
import { connected, picture, visit } from '../../web/scripts/driver.mjs';
import { artifacts, ask, origin, play, step } from './scene.mjs';

await play(async (browser) => {
  // Chromium reports the refusal that is the point of this.
  const page = await visit(browser, 'page', { room: 'session', expected: /status of 401/ });
  // The real session, with tokens of seconds in place of the hour's: should the first be over before the socket is open, the next is as brief.
  let user = '';
  const brief = async (route) => {
    const response = await route.fetch();
    if (route.request().method() !== 'POST' || !response.ok()) return route.fulfill({ response });
    const session = await response.json();
    user ||= session.user;
    return route.fulfill({ response, json: { ...session, token: await ask('brief-token', user) } });
  };
  await page.route(/\/api\/session(\/token)?$/, brief);
  await page.goto(origin);
  await connected(page);
  assert.equal(await page.getByTestId('user-id').innerText(), user);
  assert.equal(await page.evaluate(async () => (await fetch('/api/session', { method: 'DELETE' })).status), 204);
  await page.getByRole('heading', { name: 'Your session has ended' }).waitFor();
  await page.unrouteAll({ behavior: 'wait' });
  await picture(page, artifacts, 'session-ended');
  step('the page says that the session has ended');
  await page.getByRole('button', { name: 'Start a new session' }).click();
  await connected(page);
  assert.notEqual(await page.getByTestId('user-id').innerText(), user);
  step('a new session is a new guest');
});
