// What strangers' clients do, done with the public client from npm against real nodes. Each test has users and channels of its own.
import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { Centrifuge, UnauthorizedError } from 'centrifuge';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';

// TRANSPORT is one of HTTP; without it all goes over a WebSocket.
const { URL: url, TRANSPORT: transport } = process.env;
const http = url.replace(/^ws/, 'http');
const over = transport ? [{ transport, endpoint: new URL(`/connection/${transport}`, http).href }] : url;
const patience = 30_000;
/** How long a token lives that is to expire, seconds: connecting may take that long on a machine that stands still. */
const brief = 5;

const b64 = (v) => Buffer.from(typeof v === 'string' ? v : JSON.stringify(v)).toString('base64url');

// sign makes a token as functions/session does.
function sign(claims, ttl = 3600) {
  const now = Math.floor(Date.now() / 1000);
  const body = `${b64({ alg: 'HS256', typ: 'JWT' })}.${b64({ iss: 'tideline', aud: ['tideline'], iat: now, jti: randomUUID(), exp: now + ttl, ...claims })}`;
  return `${body}.${createHmac('sha256', process.env.SECRET).update(body).digest('base64url')}`;
}

const clients = [];
after(() => { for (const c of clients) c.disconnect(); });

function make(user, options = {}) {
  const c = new Centrifuge(over, { websocket: WebSocket, eventsource: EventSource, emulationEndpoint: new URL('/emulation', http).href, token: sign({ sub: user }), minReconnectDelay: 20, maxReconnectDelay: 300, timeout: patience, ...options });
  clients.push(c);
  return c;
}

// next waits for one event.
const next = (emitter, event, check = () => true) => new Promise((resolve, reject) => {
  const late = setTimeout(() => { emitter.off(event, heard); reject(new Error(`no ${event} within ${patience} ms`)); }, patience);
  function heard(ctx) {
    if (!check(ctx)) return;
    clearTimeout(late);
    emitter.off(event, heard);
    resolve(ctx);
  }
  emitter.on(event, heard);
});

async function connected(user, options) {
  const c = make(user, options);
  const up = next(c, 'connected');
  c.connect();
  await up;
  return c;
}

async function subscribed(c, channel, options = {}) {
  const sub = c.newSubscription(channel, options);
  const up = next(sub, 'subscribed');
  sub.subscribe();
  return [sub, await up];
}

// until asks again; also when a node did not answer the others in time (error 100).
async function until(what, condition) {
  for (const end = Date.now() + patience; ;) {
    try {
      if (await condition()) return;
    } catch (error) {
      if (error.code !== 100) throw error;
    }
    if (Date.now() > end) throw new Error(`not within ${patience} ms: ${what}`);
    await new Promise((r) => setTimeout(r, 20));
  }
}

// Tests that wait for tokens to expire wait together, at the end.
const together = [];
const waiting = (name, run) => together.push([name, run]);

const collect = (emitter) => {
  const all = [];
  emitter.on('publication', (p) => all.push(p.data));
  return all;
};

let operatorClient;
const operator = async () => (operatorClient ??= await connected('op', { token: sign({ sub: 'op', roles: ['operator'] }) }));
const order = async (method, data) => (await (await operator()).rpc(method, data)).data;
const publish = async (channel, data) => (await operator()).publish(channel, data);

test('connect and disconnect in a loop', async () => {
  const c = make('loop');
  for (let i = 0; i < 20; i++) {
    c.connect();
    if (i % 2) await c.ready(patience);
    c.disconnect();
  }
  const up = next(c, 'connected');
  c.connect();
  await up;
  assert.equal(c.state, 'connected');
});

test('closing before the transport is open', async () => {
  const c = make('hasty');
  const down = next(c, 'disconnected');
  c.connect();
  c.disconnect();
  assert.equal((await down).code, 0);
  await until('nothing is left of it', async () => (await order('connections', { user: 'hasty' })).total === 0);
});

test('subscribe and unsubscribe in a loop', async () => {
  const c = await connected('subloop');
  const sub = c.newSubscription('open:subloop');
  const got = collect(sub);
  for (let i = 0; i < 30; i++) {
    sub.subscribe();
    if (transport || i % 3 === 0) await sub.ready(patience);
    sub.unsubscribe();
    // Over HTTP the next subscribe might overtake this.
    if (transport) await until('it is unsubscribed', async () => (await order('connections', { channel: 'open:subloop' })).total === 0);
  }
  const up = next(sub, 'subscribed');
  sub.subscribe();
  await up;
  await publish('open:subloop', 1);
  await publish('open:subloop', 2);
  await until('both are here', () => got.length >= 2);
  assert.deepEqual(got, [1, 2]);
});

test('unsubscribing between a command and its reply', async () => {
  const c = await connected('between');
  const sub = c.newSubscription('open:between');
  const got = collect(sub);
  sub.subscribe();
  await new Promise((r) => setImmediate(r)); // the command has been written
  sub.unsubscribe();
  await c.rpc('time', null);
  assert.equal(sub.state, 'unsubscribed');
  // Over HTTP both are requests of their own, which may come in the other order; then the client ignores what it hears.
  if (!transport) assert.equal((await order('connections', { channel: 'open:between' })).total, 0);
  await publish('open:between', 'unheard');
  await c.rpc('time', null);
  assert.deepEqual(got, []);
});

test('a connection without a token, with a bad one, with an expired one', async () => {
  const none = make('x', { token: '' });
  let down = next(none, 'disconnected');
  none.connect();
  assert.equal((await down).code, 101);

  const bad = make('x', { token: 'a.b.c' });
  down = next(bad, 'disconnected');
  bad.connect();
  assert.equal((await down).code, 3500);

  const expired = make('x', { token: sign({ sub: 'x' }, -60) });
  down = next(expired, 'disconnected');
  expired.connect();
  assert.equal((await down).code, 1); // unauthorized: there is nowhere to get another from

  let calls = 0;
  const renewed = await connected('x', { token: sign({ sub: 'x' }, -60), getToken: async () => { calls++; return sign({ sub: 'x' }); } });
  assert.equal(renewed.state, 'connected');
  assert.equal(calls, 1);
});

test('getToken fails, then works; and refuses', async () => {
  let calls = 0;
  const c = make('t', { token: '', getToken: async () => { if (++calls < 3) throw new Error('away'); return sign({ sub: 't' }); } });
  const errors = [];
  c.on('error', (e) => errors.push(e.type));
  const up = next(c, 'connected');
  c.connect();
  await up;
  assert.deepEqual(errors, ['connectToken', 'connectToken']);

  const no = make('t', { token: '', getToken: async () => { throw new UnauthorizedError('no'); } });
  const down = next(no, 'disconnected');
  no.connect();
  assert.equal((await down).code, 1);
});

waiting('a token that expires is refreshed in place', async () => {
  let calls = 0;
  const c = make('fresh', { token: sign({ sub: 'fresh' }, brief), getToken: async () => { calls++; return sign({ sub: 'fresh' }, calls < 2 ? brief : 3600); } });
  const trouble = [];
  c.on('error', (e) => trouble.push(e));
  let connects = 0;
  c.on('connected', () => connects++);
  c.connect();
  await until('two refreshes', () => calls === 2);
  await c.rpc('time', null);
  assert.equal(connects, 1);
  assert.deepEqual(trouble, []);
});

waiting('a refresh with a token that has expired comes back with a new one', async () => {
  let calls = 0;
  const c = make('late', { token: sign({ sub: 'late' }, brief), getToken: async () => sign({ sub: 'late' }, ++calls === 1 ? -5 : 3600) });
  c.connect();
  assert.equal((await next(c, 'connecting', (x) => x.code !== 0)).code, 3005);
  await next(c, 'connected');
  assert.equal(calls, 2);
});

waiting('a refresh with another user\'s token is the end', async () => {
  const c = make('me', { token: sign({ sub: 'me' }, brief), getToken: async () => sign({ sub: 'you' }) });
  c.connect();
  assert.equal((await next(c, 'disconnected')).code, 3500);
});

waiting('a refresh with fewer roles ends what they allowed', async () => {
  const c = make('ex', { token: sign({ sub: 'ex', roles: ['operator'] }, brief), getToken: async () => sign({ sub: 'ex' }) });
  c.connect();
  const [logs] = await subscribed(c, 'logs:x');
  const [open] = await subscribed(c, 'open:ex');
  assert.equal((await next(logs, 'unsubscribed')).code, 2000);
  assert.equal(open.state, 'subscribed');
});

test('unauthorised subscriptions', async () => {
  const c = await connected('stranger');
  for (const [channel, code] of [['todos:#ann', 103], ['docker:x', 103], ['nowhere:x', 102], ['room:x', 103], ['open:{x}', 107]]) {
    const sub = c.newSubscription(channel);
    const down = next(sub, 'unsubscribed');
    sub.subscribe();
    assert.equal((await down).code, code, channel);
  }
  const sub = c.newSubscription('room:no', { getToken: async () => { throw new UnauthorizedError('no'); } });
  const down = next(sub, 'unsubscribed');
  sub.subscribe();
  assert.equal((await down).code, 1);
  assert.equal(c.state, 'connected');
});

waiting('subscription tokens, refreshed in place and replaced when expired', async () => {
  const channel = 'room:kitchen';
  const c = await connected('cook');
  const token = (ttl) => sign({ sub: 'cook', channel }, ttl);
  let calls = 0;
  const [sub] = await subscribed(c, channel, { token: token(-60), getToken: async () => { calls++; return token(calls < 3 ? brief : 3600); } });
  assert.equal(calls, 1); // the expired one was replaced
  const down = [];
  sub.on('subscribing', (x) => down.push(x));
  sub.on('unsubscribed', (x) => down.push(x));
  await until('two refreshes', () => calls === 3);
  await sub.publish('still in');
  assert.deepEqual(down, []);

  for (const wrong of [{ sub: 'cook', channel: 'room:cellar' }, { sub: 'thief', channel }, { sub: 'cook' }]) {
    const other = await connected('cook');
    const s = other.newSubscription(channel, { token: sign(wrong) });
    const refused = next(s, 'unsubscribed');
    s.subscribe();
    assert.equal((await refused).code, 103, JSON.stringify(wrong));
  }
  const asConnection = make('cook', { token: token(60) });
  const closed = next(asConnection, 'disconnected');
  asConnection.connect();
  assert.equal((await closed).code, 3500);
});

waiting('a sub_refresh with an expired token comes back with a new one', async () => {
  const channel = 'room:late';
  const c = await connected('cook2');
  let calls = 0;
  const [sub] = await subscribed(c, channel, { getToken: async () => sign({ sub: 'cook2', channel }, [brief, -5, 3600][calls++]) });
  assert.equal((await next(c, 'connecting')).code, 3006);
  await next(sub, 'subscribed');
  assert.equal(calls, 3);
});

test('recovery after a disconnect, in order and once', async () => {
  const c = await connected('rec');
  const [sub] = await subscribed(c, 'open:rec');
  const got = collect(sub);
  await publish('open:rec', 1);
  await until('the first', () => got.length === 1);
  c.disconnect();
  await until('gone', async () => (await order('connections', { user: 'rec' })).total === 0);
  for (let i = 2; i <= 50; i++) await publish('open:rec', i);
  const again = next(sub, 'subscribed');
  c.connect();
  const ctx = await again;
  assert.ok(ctx.wasRecovering && ctx.recovered);
  await publish('open:rec', 51);
  await until('all', () => got.length >= 51);
  assert.deepEqual(got, Array.from({ length: 51 }, (_, i) => i + 1));
});

test('recovery after the server has said goodbye', async () => {
  const c = await connected('moved');
  const [sub] = await subscribed(c, 'open:moved');
  const got = collect(sub);
  for (let i = 1; i <= 3; i++) {
    const again = next(sub, 'subscribed');
    const gone = next(c, 'connecting');
    assert.equal((await order('disconnect', { user: 'moved', reconnect: true })).total, 1);
    assert.equal((await gone).code, 3011);
    await publish('open:moved', i);
    assert.ok((await again).recovered);
  }
  await until('all', () => got.length >= 3);
  assert.deepEqual(got, [1, 2, 3]);
});

test('recovery after unsubscribing', async () => {
  const c = await connected('back');
  const [sub] = await subscribed(c, 'open:back');
  const got = collect(sub);
  await publish('open:back', 1);
  await until('the first', () => got.length === 1);
  sub.unsubscribe();
  await publish('open:back', 2);
  const again = next(sub, 'subscribed');
  sub.subscribe();
  const ctx = await again;
  assert.ok(ctx.wasRecovering && ctx.recovered);
  await until('the second', () => got.length >= 2);
  assert.deepEqual(got, [1, 2]);
});

test('an unrecoverable position is told, and adopted', async () => {
  const c = await connected('lost');
  await publish('open:lost', 1);
  const [, ctx] = await subscribed(c, 'open:lost', { since: { epoch: 'another', offset: 7 } });
  assert.ok(ctx.wasRecovering && !ctx.recovered);
  assert.equal(ctx.streamPosition.offset, 1);
});

test('getState is asked at an unrecoverable position', async () => {
  const c = await connected('state');
  await publish('open:state', 1);
  let calls = 0;
  const history = async () => { calls++; const h = await c.history('open:state', { limit: 0 }); return { offset: calls === 1 ? 77 : h.offset, epoch: calls === 1 ? 'x' : h.epoch }; };
  const [, ctx] = await subscribed(c, 'open:state', { getState: history });
  assert.equal(calls, 2); // error 112 made the client ask again
  assert.ok(ctx.recovered);
});

test('presence, presence stats, joins and leaves', async () => {
  const a = await connected('pa', { token: sign({ sub: 'pa', info: { name: 'A' } }) });
  const [sub] = await subscribed(a, 'open:p', { joinLeave: true });
  const joined = next(sub, 'join', (j) => j.info.user === 'pb');
  const b = await connected('pb');
  await subscribed(b, 'open:p');
  await joined;
  const { clients } = await sub.presence();
  assert.deepEqual(Object.values(clients).map((i) => [i.user, i.connInfo?.name]).sort(), [['pa', 'A'], ['pb', undefined]]);
  assert.deepEqual(await sub.presenceStats(), { numClients: 2, numUsers: 2 });
  const left = next(sub, 'leave', (l) => l.info.user === 'pb');
  b.disconnect();
  await left;
});

test('history in pages, both ways', async () => {
  const c = await connected('hist');
  const [sub] = await subscribed(c, 'open:hist');
  for (let i = 1; i <= 10; i++) await publish('open:hist', i);
  const top = await sub.history();
  assert.equal(top.offset, 10);
  assert.deepEqual(top.publications, []);
  const data = (h) => h.publications.map((p) => p.data);
  const first = await sub.history({ limit: 4, since: { offset: 0, epoch: top.epoch } });
  assert.deepEqual(data(first), [1, 2, 3, 4]);
  assert.deepEqual(data(await sub.history({ limit: 100, since: { offset: 4, epoch: top.epoch } })), [5, 6, 7, 8, 9, 10]);
  assert.deepEqual(data(await sub.history({ limit: 2, reverse: true })), [10, 9]);
  assert.deepEqual(data(await sub.history({ limit: 2, reverse: true, since: { offset: 3, epoch: top.epoch } })), [2, 1]);
  assert.deepEqual(data(await sub.history({ limit: -1 })).length, 10);
  await assert.rejects(sub.history({ limit: 1, since: { offset: 1, epoch: 'another' } }), { code: 112 });
});

test('rpc and publish wait for the connection', async () => {
  const c = make('early');
  const answers = Promise.all([c.rpc('node.info', null), c.publish('open:early', 1)]);
  c.connect();
  const [info] = await answers;
  assert.ok(info.data.node.startsWith('node-'));
  await assert.rejects(c.rpc('nope', null), { code: 104 });
});

test('offline and online', async () => {
  const network = new EventTarget();
  const c = await connected('train', { networkEventTarget: network });
  const [sub] = await subscribed(c, 'open:train');
  const got = collect(sub);
  const off = next(c, 'connecting');
  network.dispatchEvent(new Event('offline'));
  await off;
  await publish('open:train', 1);
  const again = next(sub, 'subscribed');
  network.dispatchEvent(new Event('online'));
  assert.ok((await again).recovered);
  await until('what was missed', () => got.length === 1);
});

test('hundreds of subscriptions come with one frame, and come back', async () => {
  const c = make('many');
  const subs = Array.from({ length: 300 }, (_, i) => c.newSubscription(`open:many${i}`));
  const all = () => Promise.all(subs.map((s) => next(s, 'subscribed')));
  let up = all();
  for (const s of subs) s.subscribe();
  c.connect();
  await up;
  up = all();
  await order('disconnect', { user: 'many', reconnect: true });
  for (const ctx of await up) assert.ok(ctx.recovered);
});

test('batched commands are answered in order', async () => {
  const c = await connected('batch');
  const [sub] = await subscribed(c, 'open:batch');
  const got = collect(sub);
  c.startBatching();
  const sent = Array.from({ length: 100 }, (_, i) => c.publish('open:batch', i));
  c.stopBatching();
  await Promise.all(sent);
  await until('all', () => got.length >= 100);
  assert.deepEqual(got, Array.from({ length: 100 }, (_, i) => i));
});

test('server-side subscriptions of the token, recovered', async () => {
  const c = make('srv', { token: sign({ sub: 'srv', channels: ['open:srv', 'user:#srv'] }) });
  const got = collect(c);
  const channels = [];
  const both = new Promise((resolve) => c.on('subscribed', (x) => { if (channels.push(x.channel) === 2) resolve(); }));
  c.connect();
  await both;
  assert.deepEqual(channels.sort(), ['open:srv', 'user:#srv']);
  await publish('open:srv', 1);
  await until('the first', () => got.length === 1);
  c.disconnect();
  await until('gone', async () => (await order('connections', { user: 'srv' })).total === 0);
  await publish('open:srv', 2);
  const again = next(c, 'subscribed', (x) => x.channel === 'open:srv');
  c.connect();
  assert.ok((await again).recovered);
  await until('the second', () => got.length === 2);
  assert.deepEqual(got, [1, 2]);
});

test('subscribed and unsubscribed by order', async () => {
  const c = await connected('ordered');
  const got = collect(c);
  const [own] = await subscribed(c, 'open:own');
  const up = next(c, 'subscribed');
  assert.equal((await order('subscribe', { user: 'ordered', channel: 'open:ordered' })).total, 1);
  assert.equal((await up).channel, 'open:ordered');
  await publish('open:ordered', 1);
  await until('it is here', () => got.length === 1);
  const down = next(c, 'unsubscribed');
  assert.equal((await order('unsubscribe', { user: 'ordered', channel: 'open:ordered' })).total, 1);
  assert.equal((await down).channel, 'open:ordered');
  const out = next(own, 'unsubscribed');
  assert.equal((await order('unsubscribe', { channel: 'open:own' })).total, 1);
  assert.equal((await out).code, 2000);
  assert.equal(c.state, 'connected');
});

test('disconnected for good, by order and by revocation', async () => {
  const c = await connected('out');
  let down = next(c, 'disconnected');
  await order('disconnect', { user: 'out' });
  assert.equal((await down).code, 3503);

  const token = sign({ sub: 'gone', sid: 'session-9' });
  const r = await connected('gone', { token });
  down = next(r, 'disconnected');
  await order('revoke', { session: 'session-9' });
  assert.equal((await down).code, 3503);
  await until('every node refuses it', async () => { // one that has not heard of it yet ends the connection when it does
    const back = make('gone', { token });
    const end = next(back, 'disconnected');
    back.connect();
    return (await end).code === 3500;
  });
});

test('a revoked subscription token ends its subscription only', async () => {
  const c = await connected('guest');
  const [sub] = await subscribed(c, 'room:party', { token: sign({ sub: 'guest', channel: 'room:party', jti: 'invitation' }) });
  const out = next(sub, 'unsubscribed');
  await order('revoke', { token: 'invitation' });
  assert.equal((await out).code, 2000);
  assert.equal(c.state, 'connected');
});

test('send, and a message past the limit, end the connection for good', async () => {
  const s = await connected('sender');
  let down = next(s, 'disconnected');
  await s.send({ x: 1 });
  assert.equal((await down).code, 3508);

  const big = await connected('big', { timeout: 5_000 }); // no answer comes, and is waited for as long
  if (transport) { // a request that is refused is the command's end alone, and the SDK doesn't tell it from one that is not answered
    await assert.rejects(big.publish('open:big', 'x'.repeat(Number(process.env.MESSAGE_BYTES))), { code: 1 });
    assert.equal(big.state, 'connected');
    return;
  }
  down = next(big, 'disconnected');
  big.publish('open:big', 'x'.repeat(Number(process.env.MESSAGE_BYTES))).catch(() => {});
  assert.equal((await down).code, 3); // the SDK's own: message size limit
});

test('tokens that expire', { concurrency: together.length }, (t) => Promise.all(together.map(([name, run]) => t.test(name, run))));
