// The operators' view of containers and their logs, over a real Docker Engine: what is shown, what a flood does, pausing, finding, and every state.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { AWAY, connected, holds, PATIENCE, picture, visit, WIDE } from '../../web/scripts/driver.mjs';
import { artifacts, ask, env, origin, play, step } from './scene.mjs';

/** The page's own bounds (web/src/app/logs/model.ts), and rows that may be in the document at once. */
const LINES_MAX = 10_000;
const MOUNTED_MAX = 130;

const lines = (page) => page.getByTestId('log-line');
const line = (page, text) => lines(page).filter({ hasText: text });
const foot = (page) => page.getByTestId('log-foot');
const container = (page, name) => page.locator(`[data-testid="container"][data-name="${name}"]`);
const go = (page, hash) => page.evaluate((h) => { location.hash = h; }, hash);
const shot = (page, name, options) => picture(page, artifacts, `logs-${name}`, options);
const atEnd = (page) =>
  page.waitForFunction(() => {
    const box = document.querySelector('.log-lines');
    return box && box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  });
/** Rows stand one below the other, without holes and without covering each other. */
const tidy = (page) =>
  page.waitForFunction(() => {
    const rows = [...document.querySelectorAll('.log-row')].map((row) => row.getBoundingClientRect()).sort((a, b) => a.top - b.top);
    return rows.length > 1 && rows.every((row, n) => n === 0 || Math.abs(row.top - rows[n - 1].bottom) < 1);
  });
/** At both widths, wrapped and not, and with and without times: each changes the height of lines. */
async function tidied(page) {
  for (const viewport of [{ width: 390, height: 844 }, WIDE]) {
    await page.setViewportSize(viewport);
    await tidy(page);
    for (const name of ['Wrap', 'Times', 'Wrap', 'Times']) {
      await page.getByRole('button', { name }).click();
      await tidy(page);
    }
  }
}

/** Some line has what is looked for. */
const found = (page) =>
  page.waitForFunction(() => Number.parseInt(document.querySelector('[data-testid=log-found]')?.textContent ?? '0') > 0);

/** To where it follows, by the keyboard. */
async function toEnd(page) {
  await page.locator('.log-lines').press('End');
  await page.locator('.log-end').waitFor({ state: 'detached' });
  await atEnd(page);
}

await play(async (browser) => {
  const page = await visit(browser, 'operator', { permissions: ['clipboard-read', 'clipboard-write'] });
  await page.goto(env.OPERATOR);
  await connected(page);
  await page.getByRole('link', { name: 'Logs' }).click();
  await list(page);
  await reading(page);
  await finding(page);
  await taking(page);
  await flooded(page);
  await paused(page);
  await events(page);
  await lives(page);
  await page.context().close();
  await away(browser);
  await others(browser);
  await pretended(browser);
});

async function list(page) {
  await container(page, 'api').waitFor();
  const rows = () => page.getByTestId('container').evaluateAll((all) => all.map((a) => [a.dataset.name, a.dataset.state]));
  await holds(async () => assert.deepEqual(await rows(), [['api', 'running'], ['ledger', 'running'], ['pilot', 'running'], ['ledger-migrate', 'exited']]));
  assert.match(await container(page, 'api').innerText(), /harbour\/api:1\.4\.2/);
  assert.match(await container(page, 'api').innerText(), /\bUp (\d+ \w+|About a minute|Less than a second)/);
  assert.match(await container(page, 'ledger-migrate').innerText(), /Exited \(/);
  await shot(page, 'list');
  step('the list of containers');
}

async function reading(page) {
  await container(page, 'api').click();
  // It begins when it is heard: who comes late has the latest 200 lines alone.
  await page.locator('[data-testid="log-foot"][data-state="live"]').waitFor();
  await ask('begin', 'api');
  await line(page, 'lookout: no answer').first().waitFor();
  assert.equal(await line(page, 'lookout').first().getAttribute('data-source'), 'stderr');
  await atEnd(page);
  await page.mouse.move(5, 500);
  await shot(page, 'follow');
  // Scrolled up, it stays where it is; what comes is counted.
  await page.locator('.log-lines').evaluate((box) => { box.scrollTop = 0; });
  await page.getByRole('button', { name: /\d+ new lines?/ }).waitFor();
  await line(page, 'harbour 1.4.2').waitFor();
  await page.getByRole('button', { name: /([3-9]|\d\d+) new lines/ }).waitFor();
  assert.equal(await page.locator('.log-lines').evaluate((box) => box.scrollTop), 0, 'nothing moves while one reads');
  assert.ok((await line(page, 'is text').innerText()).includes('<script>'), 'markup is text');
  assert.equal(await page.title(), 'Tideline', 'and is not run');
  assert.equal(await page.locator('.log-lines img, .log-lines script').count(), 0);
  assert.equal(await line(page, 'cursor and title are gone').locator('.log-text').innerText(), 'cursor and title are gone');
  const pink = line(page, 'pink').locator('.log-text span').filter({ hasText: /^pink$/ });
  const [own, plain] = await pink.evaluate((e) => [getComputedStyle(e).color, getComputedStyle(e.parentElement).color]);
  assert.notEqual(own, plain);
  await line(page, 'manifest').locator('.log-cut').waitFor();
  await shot(page, 'colours');
  await tidied(page);
  await page.locator('.log-lines').press('Home');
  await page.locator('.log-end').click();
  await atEnd(page);
  await page.locator('.log-end').waitFor({ state: 'detached' });
  await page.locator('.log-lines').focus();
  await page.keyboard.press('Home');
  await page.locator('.log-end').waitFor();
  await page.waitForFunction(() => document.querySelector('.log-lines').scrollTop === 0); // it moves there smoothly
  await toEnd(page);
  step('a log with colours, followed and read back');
}

async function finding(page) {
  await page.keyboard.press('/');
  await page.keyboard.type('LOOKOUT');
  const count = page.getByTestId('log-found');
  await found(page);
  await page.keyboard.press('Enter');
  await page.locator('.log-row[data-current]', { hasText: 'lookout' }).waitFor();
  await holds(async () => assert.match(await count.innerText(), /^1 of \d+/));
  const first = await page.locator('.log-row[data-current]').getAttribute('data-index');
  await page.keyboard.press('Enter');
  await holds(async () => assert.match(await count.innerText(), /^(2 of \d+|1 of 1\b)/));
  await page.keyboard.press('Shift+Enter');
  await page.locator(`.log-row[data-current][data-index="${first}"]`).waitFor();
  assert.equal((await page.locator('.log-row[data-current] mark').first().innerText()).toLowerCase(), 'lookout');
  await shot(page, 'search');
  await page.getByRole('button', { name: 'Only these' }).click();
  await holds(async () => {
    const kept = await lines(page).allInnerTexts();
    assert.ok(kept.length > 0 && kept.every((text) => text.includes('lookout')), 'the filter shows nothing else');
  });
  await shot(page, 'filter');
  await page.getByTestId('log-search').fill('no line has this');
  await page.getByText('No line has that').waitFor();
  await page.getByTestId('log-search').press('Escape');
  await line(page, 'ship=').first().waitFor();
  await toEnd(page);
  step('search: highlight, count, next and previous, filter');
}

async function taking(page) {
  await page.getByRole('button', { name: 'Copy the log of api' }).click();
  await page.getByText(/Copied [\d,]+ lines/).waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(copied, /^\d{4}-\d\d-\d\dT[\d:.]+Z stdout harbour 1\.4\.2 listening on :8080\n/m);
  assert.ok(!copied.includes('\u001b'), 'without escape sequences');
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Save the log of api' }).click()]);
  assert.match(download.suggestedFilename(), /^docker-logs-api-.*\.log$/);
  assert.match(readFileSync(await download.path(), 'utf8'), /stderr lookout: no answer/);
  await page.getByRole('button', { name: 'Times' }).click();
  await page.locator('.log-time').first().waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Times' }).click();
  await page.getByRole('button', { name: 'Wrap' }).click();
  await atEnd(page);
  await page.getByRole('button', { name: 'Wrap' }).click();
  await atEnd(page);
  step('copied and saved');
}

async function flooded(page) {
  // It is looked for: what is said of the flood may be out of sight before anybody looks.
  await page.getByTestId('log-search').fill('lines dropped: they came too fast');
  await ask('flood', 'api');
  await found(page);
  await page.getByTestId('log-search').press('Escape');
  await page.waitForFunction(() => {
    const row = [...document.querySelectorAll('.log-row')].at(-1);
    return row && !row.textContent.includes('flood');
  });
  await atEnd(page);
  const mounted = await lines(page).count();
  assert.ok(mounted > 0 && mounted <= MOUNTED_MAX, `${mounted} rows in the document`);
  await page.getByTestId('log-search').fill('dropped:');
  await page.getByTestId('log-search').press('Enter');
  await page.locator('.log-row[data-current][data-kind="dropped"]').waitFor();
  await shot(page, 'flood');
  await page.getByTestId('log-search').press('Escape');
  await toEnd(page);
  // All of the way through, at the speed of a screen.
  const longest = await page.evaluate(async () => {
    const box = document.querySelector('.log-lines');
    let longest = 0;
    let before = performance.now();
    for (let n = 0; n <= 60; n++) {
      box.scrollTop = (box.scrollHeight * n) / 60;
      await new Promise(requestAnimationFrame);
      longest = Math.max(longest, performance.now() - before);
      before = performance.now();
    }
    return Math.round(longest);
  });
  step(`a flood is told in numbers; ${mounted} rows in the document, longest frame ${longest} ms`);
}

async function paused(page) {
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.waitForFunction(() => /\d+ wait/.test(document.querySelector('[data-testid=log-foot]').textContent));
  const before = await lines(page).allInnerTexts();
  // More than may wait: a node lets 2,000 lines through at once, and that many again when it was quiet for 4 s.
  const over = page.waitForFunction(() => /that waited had to go/.test(document.querySelector('[data-testid=log-foot]').textContent), undefined, { timeout: 2 * PATIENCE });
  let full = false;
  over.then(() => { full = true; }, () => {}); // it is awaited below
  for (let n = 0; n < 12 && !full; n++) {
    await ask('flood', 'api');
    await page.waitForTimeout(4_000); // the time is what is asked for
  }
  await over;
  assert.deepEqual(await lines(page).allInnerTexts(), before, 'nothing moves while paused');
  await shot(page, 'paused');
  await page.getByRole('button', { name: 'Resume' }).click();
  await atEnd(page);
  await page.getByTestId('log-search').fill('had to go');
  await page.getByTestId('log-search').press('Enter');
  await page.locator('.log-row[data-current]', { hasText: 'at most 5,000 wait' }).waitFor();
  await page.getByTestId('log-search').press('Escape');
  const kept = Number((await foot(page).innerText()).match(/([\d,]+) lines/)[1].replace(',', ''));
  assert.ok(kept <= LINES_MAX, `${kept} lines are kept`);
  step(`paused: what waits is bounded, and what went is said; ${kept} lines kept`);
}

async function events(page) {
  await ask('restart', 'pilot');
  await go(page, '#logs/events');
  await line(page, /container start pilot/).waitFor();
  await ask('run', 'tug');
  await line(page, /container start tug/).waitFor();
  await container(page, 'tug').waitFor();
  await shot(page, 'events');
  await container(page, 'pilot').click();
  await page.getByRole('link', { name: 'Events', exact: true }).click();
  await page.getByText('Watching the events of pilot').waitFor();
  await ask('restart', 'tug');
  await ask('restart', 'pilot');
  await line(page, 'container start pilot').waitFor();
  assert.equal(await line(page, 'tug').count(), 0, 'only its own');
  step('events, of all and of one; the list follows them');
}

/** A container's log goes on through its restart and its removal. */
async function lives(page) {
  await go(page, '#logs/container/tug');
  await line(page, 'harbour 1.4.2').first().waitFor();
  await ask('restart', 'tug');
  await line(page, 'closing the harbour').last().waitFor();
  await line(page, 'the container was started').waitFor();
  await ask('remove', 'tug');
  await line(page, 'the container was removed').waitFor();
  await container(page, 'tug').waitFor({ state: 'detached' });
  await shot(page, 'removed');
  await tidied(page);
  await go(page, '#logs/container/nobody');
  await line(page, 'there is no such container').waitFor();
  await shot(page, 'no-such');
  await go(page, '#logs/container/ledger');
  await line(page, 'nothing to do').waitFor();
  step('restarted, removed, never there, silent');
}

async function away(browser) {
  const page = await visit(browser, 'away', { expected: AWAY });
  await page.goto(env.OPERATOR);
  await connected(page);
  await go(page, '#logs/container/pilot');
  await lines(page).nth(5).waitFor();
  await page.context().setOffline(true);
  await page.locator('[data-testid="log-foot"][data-state="away"]').waitFor();
  await shot(page, 'away');
  await page.context().setOffline(false);
  await page.locator('[data-testid="log-foot"][data-state="live"]').waitFor();
  await connected(page);
  step('the network away, and back');
  await ask('hang');
  await line(page, 'the Docker Engine does not answer').waitFor({ timeout: 2 * PATIENCE });
  await page.getByTestId('engine-away').waitFor({ timeout: 2 * PATIENCE });
  await shot(page, 'engine-away');
  await ask('go-on');
  await line(page, 'the Docker Engine answers again').waitFor({ timeout: 2 * PATIENCE });
  await page.getByTestId('engine-away').waitFor({ state: 'detached', timeout: 2 * PATIENCE });
  await page.context().close();
  step('the engine away, and back');
}

/** Who is no operator. */
async function others(browser) {
  const page = await visit(browser, 'guest');
  await page.goto(`${origin}/#logs/container/api`);
  await connected(page);
  await page.getByRole('heading', { name: 'For operators only' }).waitFor();
  assert.equal(await page.getByRole('link', { name: 'Logs' }).count(), 0);
  await shot(page, 'guest');
  await page.goto(`${origin}/#nodes`);
  await page.getByText('The list of nodes can close').waitFor();
  await page.context().close();
  step('others are told why they see nothing');
}

/** States that a healthy system does not show: the socket's answers are changed on their way. */
async function pretended(browser) {
  const page = await visit(browser, 'pretended', { viewport: WIDE });
  const answers = { streams: ['docker'], subscribe: 'pass' };
  await page.routeWebSocket(/\/connection\/websocket/, (socket) => {
    const server = socket.connectToServer();
    const asked = new Map();
    socket.onMessage((frame) => {
      const pass = [];
      for (const text of frame.split('\n')) {
        const command = JSON.parse(text);
        if (command.rpc?.method === 'streams') asked.set(command.id, 'streams');
        const channel = command.subscribe?.channel ?? command.history?.channel ?? '';
        if (channel.startsWith('logs:')) group(socket, command);
        else if (/^docker:logs:/.test(command.subscribe?.channel) && answers.subscribe !== 'pass') {
          if (answers.subscribe !== 'never') socket.send(JSON.stringify({ id: command.id, error: answers.subscribe }));
        } else pass.push(text);
      }
      if (pass.length > 0) server.send(pass.join('\n'));
    });
    server.onMessage((frame) => {
      const out = frame.split('\n').map((text) => {
        const reply = JSON.parse(text);
        if (asked.get(reply.id) !== 'streams') return text;
        return JSON.stringify({ id: reply.id, rpc: { data: { namespaces: answers.streams } } });
      });
      socket.send(out.join('\n'));
    });
  });
  await page.goto(env.OPERATOR);
  await connected(page);
  answers.subscribe = 'never';
  await go(page, '#logs/container/api');
  await page.getByText('Reading the log of api…').waitFor();
  await shot(page, 'loading');
  answers.subscribe = { code: 103, message: 'permission denied' };
  await go(page, '#logs/container/pilot');
  await page.getByText('This can’t be watched').waitFor();
  await shot(page, 'refused');
  answers.subscribe = { code: 100, message: 'internal server error', temporary: true };
  await go(page, '#logs/container/ledger');
  await page.getByText('Not available for the moment').first().waitFor();
  await shot(page, 'unavailable');
  step('loading, refused, not available');

  answers.streams = [];
  await page.reload();
  await connected(page);
  await go(page, '#logs');
  await page.getByTestId('no-docker').waitFor();
  await page.getByTestId('no-groups').waitFor();
  await go(page, '#logs/group/anything');
  await page.getByText('This can’t be watched here').waitFor();
  await go(page, '#logs');
  await shot(page, 'no-docker');
  answers.streams = ['logs'];
  await page.reload();
  await page.getByTestId('group-input').fill('bad name');
  await page.getByTestId('group-input').press('Enter');
  await page.getByText('A group’s name has').waitFor();
  await page.getByTestId('group-input').fill('/aws/lambda/tideline-dev-todos');
  await page.getByTestId('group-input').press('Enter');
  await line(page, 'sampled: more than 500').waitFor();
  await shot(page, 'group');
  await page.context().close();
  step('without an engine, and with log groups');
}

/** A log group as node/stream/aws tells it. */
function group(socket, command) {
  const { id, subscribe, history } = command;
  if (history) return socket.send(JSON.stringify({ id, history: { publications: [], epoch: 'e', offset: 0 } }));
  if (!subscribe) return;
  socket.send(JSON.stringify({ id, subscribe: { recoverable: true, positioned: true, epoch: 'e' } }));
  const at = Date.now();
  const s = '2026/11/22/[$LATEST]8f3c1d0b';
  const told = [
    ...Array.from({ length: 12 }, (_, n) => ({ t: at - 4000 + n * 80, s, m: `{"level":"INFO","msg":"todo saved","duration_ms":${3 + n},"request":"r-${n}"}` })),
    { t: at - 2500, gap: 'sampled: more than 500 lines came in that second, and CloudWatch showed 500 of them' },
    { t: at - 2400, s, m: '{"level":"WARN","msg":"publish tried again","attempt":2}' },
    { t: at - 1000, gap: 'the session was renewed: lines of a few seconds may be missing' },
    { t: at - 500, s, m: 'REPORT Duration: 12.31 ms Billed Duration: 13 ms Memory Size: 256 MB Max Memory Used: 48 MB' },
  ];
  const pub = { data: { type: 'lines', lines: told }, offset: 1 };
  setTimeout(() => socket.send(JSON.stringify({ push: { channel: subscribe.channel, pub } })), 300);
}
