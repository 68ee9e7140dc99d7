// The public Centrifuge client, steered by lines of JSON: commands on stdin, what happens on stdout.
//
// It behaves like a browser where that matters here: it keeps cookies (the load balancer's and the session's) and fetches its
// token over REST, anew whenever the client asks for one. The end of stdin ends it.
import { createInterface } from 'node:readline';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

const origin = process.env.ORIGIN;
const cookies = new Map();

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');

function keep(setCookies) {
  for (const line of setCookies ?? []) {
    const [pair] = line.split(';');
    const at = pair.indexOf('=');
    cookies.set(pair.slice(0, at), pair.slice(at + 1));
  }
}

const cookieHeader = () => [...cookies].map(([k, v]) => `${k}=${v}`).join('; ');

async function rest(method, path, body, headers = {}) {
  const res = await fetch(origin + path, {
    method,
    redirect: 'manual',
    headers: { cookie: cookieHeader(), ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(30_000), // a busy machine may stand still for some seconds
  });
  keep(res.headers.getSetCookie());
  const text = await res.text();
  return { status: res.status, body: text && res.headers.get('content-type')?.includes('json') ? JSON.parse(text) : text };
}

// Socket sends the cookies with the upgrade and keeps those that come back, as a browser does.
class Socket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { headers: { cookie: cookieHeader(), origin } });
    this.on('upgrade', (res) => keep(res.headers['set-cookie']));
  }
}

let token = process.env.TOKEN;
let client;
const subs = new Map();

const operations = {
  session: async () => {
    const { status, body } = await rest('POST', '/api/session');
    if (status >= 300) throw new Error(`session: ${status} ${JSON.stringify(body)}`);
    token = body.token;
    return body;
  },
  rest: ({ method, path, body, headers }) => rest(method, path, body, { authorization: `Bearer ${token}`, ...headers }),
  cookie: ({ name }) => cookies.get(name) ?? null,
  connect: async () => {
    client = new Centrifuge(origin.replace('http', 'ws') + '/connection/websocket', {
      websocket: Socket,
      token,
      getToken: async () => {
        const { status, body } = await rest('POST', '/api/session/token');
        if (status !== 200) throw new Error(`token: ${status}`);
        return body.token;
      },
      minReconnectDelay: 50,
      maxReconnectDelay: 500,
      maxServerPingDelay: 10_000,
      timeout: 30_000,
    });
    client.on('connected', (c) => say({ event: 'connected', client: c.client, node: c.data?.node }));
    client.on('connecting', (c) => say({ event: 'connecting', code: c.code, reason: c.reason }));
    client.on('disconnected', (c) => say({ event: 'disconnected', code: c.code, reason: c.reason }));
    client.connect();
  },
  disconnect: () => client.disconnect(),
  subscribe: ({ channel }) => {
    const sub = client.newSubscription(channel, {});
    subs.set(channel, sub);
    sub.on('subscribed', (c) => say({ event: 'subscribed', channel, recovered: c.recovered, wasRecovering: c.wasRecovering }));
    sub.on('unsubscribed', (c) => say({ event: 'unsubscribed', channel, code: c.code, reason: c.reason }));
    sub.on('error', (c) => say({ event: 'suberror', channel, code: c.error.code, message: c.error.message }));
    sub.on('publication', (c) => say({ event: 'publication', channel, offset: c.offset, data: c.data, tags: c.tags }));
    sub.on('join', (c) => say({ event: 'join', channel, user: c.info.user }));
    sub.on('leave', (c) => say({ event: 'leave', channel, user: c.info.user }));
    sub.subscribe();
  },
  unsubscribe: ({ channel }) => subs.get(channel).unsubscribe(),
  publish: ({ channel, data }) => client.publish(channel, data),
  rpc: ({ method, data }) => client.rpc(method, data),
  presence: ({ channel }) => subs.get(channel).presence(),
  history: ({ channel, limit }) => subs.get(channel).history({ limit }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...args } = JSON.parse(line);
  // Not awaited: commands may overlap, and the answer carries the id.
  Promise.resolve()
    .then(() => operations[op](args))
    .then(
      (result) => say({ event: 'answer', id, result: result ?? null }),
      (error) => say({ event: 'answer', id, error: { code: error.code ?? -1, message: error.message ?? String(error) } }),
    );
}
process.exit(0);
