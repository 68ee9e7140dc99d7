// The public client in a browser whose WebSockets are blocked, the same from a page of another origin, and an EventSource alone. Nothing is missed and
// nothing comes twice, over a node that is killed and a cable that is cut.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { PATIENCE, visit } from '../../web/scripts/driver.mjs';
import { ask, env, play, step } from './scene.mjs';

const { TOKEN, NO_WEBSOCKET, GETS_ONLY, ELSEWHERE, CABLE } = env;
const example = readFileSync('../../docs/protocol.md', 'utf8').match(/```js watch\n(.*?)```/s)[1];
// What blocks, and the load balancer for a node that is gone, answer without the headers that another origin's page needs.
const BLOCKED = /blocked by CORS policy|WebSocket connection to .* failed|status of (403|405|404|50\d)|ERR_(INCOMPLETE_CHUNKED_ENCODING|CONNECTION_\w+|EMPTY_RESPONSE|FAILED)/;

await play(async (browser) => {
  const blank = async (name, at) => {
    const page = await visit(browser, name, { expected: BLOCKED });
    await page.goto(`${at}/blank.html`);
    return page;
  };
  // Connects and subscribes; what is heard is kept on the page.
  const connect = async (page, base, room) => {
    await page.addScriptTag({ url: '/sdk.js' });
    return page.evaluate(({ base, room, token, patience }) => new Promise((resolve, reject) => {
      const at = (path) => new URL(path, base).href;
      const client = new Centrifuge([
        { transport: 'websocket', endpoint: at('/connection/websocket').replace(/^http/, 'ws') },
        { transport: 'http_stream', endpoint: at('/connection/http_stream') },
        { transport: 'sse', endpoint: at('/connection/sse') },
      ], { emulationEndpoint: at('/emulation'), token, minReconnectDelay: 50, maxReconnectDelay: 500, timeout: patience });
      const seen = { client, got: [], subscribed: [] };
      window.seen = seen;
      seen.sub = client.newSubscription(room);
      seen.sub.on('publication', ({ data }) => seen.got.push(data.data.text));
      seen.sub.on('subscribed', ({ wasRecovering, recovered }) => seen.subscribed.push([wasRecovering, recovered]));
      seen.sub.subscribe();
      client.on('connected', ({ transport, data }) => { seen.node = data.node; seen.transport = transport; });
      client.connect();
      seen.sub.ready(patience).then(() => resolve(seen.transport), reject);
    }), { base, room, token: TOKEN, patience: PATIENCE });
  };
  const say = (page, text) => page.evaluate((text) => window.seen.sub.publish({ text }), text);
  // It may be said again: by its id it is published once.
  const sayOnce = (page, text) => page.evaluate((text) => {
    const { client, sub } = window.seen;
    return client.rpc('publish', { channel: sub.channel, data: { text }, id: `${sub.channel} ${text}` });
  }, text);
  const heard = async (page, want) => {
    await page.waitForFunction((n) => window.seen.got.length >= n, want.length);
    assert.deepEqual(await page.evaluate(() => window.seen.got), want);
  };

  const direct = await blank('direct', NO_WEBSOCKET);
  for (const [name, at, base, transport] of [
    ['no WebSocket', NO_WEBSOCKET, NO_WEBSOCKET, 'http_stream'],
    ['GET alone', GETS_ONLY, GETS_ONLY, 'sse'],
    ['a page of another origin', ELSEWHERE, NO_WEBSOCKET, 'http_stream'],
    ['a page of another origin, GET alone', ELSEWHERE, GETS_ONLY, 'sse'],
  ]) {
    const room = `chat:${name.toLowerCase().replace(/\W+/g, '-')}`;
    const page = await blank(name, at);
    assert.equal(await connect(page, base, room), transport, name);
    await direct.goto(`${NO_WEBSOCKET}/blank.html`);
    await connect(direct, NO_WEBSOCKET, room);
    await say(page, 'one');
    await heard(direct, ['one']);
    await say(direct, 'two');
    await heard(page, ['one', 'two']);
    const node = await page.evaluate(() => window.seen.node);
    await ask('kill', node);
    await direct.evaluate((patience) => window.seen.sub.ready(patience), PATIENCE);
    for (let left = 100; left > 0; left--) { // its own node may be the one; then a command fails until it has moved
      try { await sayOnce(direct, 'three'); break; } catch (error) { if (left === 1) throw error; await direct.waitForTimeout(100); }
    }
    await page.waitForFunction(() => window.seen.got.length >= 3 && window.seen.subscribed.length >= 2);
    await heard(page, ['one', 'two', 'three']);
    assert.deepEqual(await page.evaluate(() => window.seen.subscribed.at(-1)), [true, true], 'recovered');
    await page.close();
    await ask('again', node);
    step(`${name}: ${transport}, and over a killed node`);
  }

  await direct.goto(`${NO_WEBSOCKET}/blank.html`);
  await connect(direct, NO_WEBSOCKET, 'chat:events');
  const watcher = await blank('watcher', CABLE);
  await watcher.evaluate(({ example, token }) => {
    window.seen = { got: [], refetched: [] };
    new Function('channel', 'getToken', 'refetch', 'heard', example)('chat:events', async () => token,
      (channel) => window.seen.refetched.push(channel), (channel, data) => window.seen.got.push(data.data.text));
  }, { example, token: TOKEN });
  await watcher.waitForFunction(() => window.seen.refetched.length === 1);
  await say(direct, 'a');
  await heard(watcher, ['a']);
  for (const [i, text] of ['b', 'c'].entries()) {
    await ask('cut');
    await say(direct, text);
    await say(direct, `${text} again`);
    await ask('mend');
    await heard(watcher, ['a', 'b', 'b again', 'c', 'c again'].slice(0, 3 + 2 * i));
  }
  assert.deepEqual(await watcher.evaluate(() => window.seen.refetched), ['chat:events'], 'it resumed, and so had nothing to fetch again');
  step('an EventSource, as docs/protocol.md shows it: cut twice, resumed by Last-Event-ID');
});
