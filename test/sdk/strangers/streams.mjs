// The scene of streams_test.go, played by the public client from npm over the transports that are given, in their order.
import { EventSource } from 'eventsource';
import WebSocket from 'ws';

const { URL: address, FORMAT, NAME, TOKEN, FRESH, CHANNEL, BYTES, TRANSPORTS } = process.env;
const protobuf = FORMAT === 'protobuf';
const { Centrifuge } = await import(protobuf ? 'centrifuge/build/protobuf' : 'centrifuge');
const say = (...words) => console.log(words.join(' '));
const encode = (v) => (protobuf ? new TextEncoder().encode(JSON.stringify(v)) : v);
const text = (data) => (protobuf ? new TextDecoder().decode(data) : JSON.stringify(data));

const http = new URL(address.replace(/^ws/, 'http'));
const endpoint = (transport) => new URL(`/connection/${transport}`, transport === 'websocket' ? address : http).href;

// What a command that is lost would hide behind a reconnect is counted: only the end of a node may take one.
let failed = 0;
const post = async (url, options) => {
  const emulation = String(url).endsWith('/emulation');
  try {
    const response = await fetch(url, options);
    if (emulation && response.status !== 204) failed += 1;
    return response;
  } catch (error) {
    if (emulation && error.name !== 'AbortError') failed += 1;
    throw error;
  }
};

const client = new Centrifuge(TRANSPORTS.split(',').map((transport) => ({ transport, endpoint: endpoint(transport) })), {
  websocket: WebSocket, eventsource: EventSource, fetch: post, emulationEndpoint: new URL('/emulation', http).href,
  token: TOKEN, minReconnectDelay: 20, maxReconnectDelay: 300, timeout: 30_000,
  getToken: async () => { say('refreshed'); return FRESH; },
});
client.on('connected', ({ transport }) => say('connected', transport));
client.on('disconnected', ({ code }) => say('disconnected', code));
const sub = client.newSubscription(CHANNEL, { joinLeave: true });
sub.on('subscribed', ({ wasRecovering, recovered }) => say('subscribed', wasRecovering, recovered));
sub.on('publication', ({ offset, data }) => {
  say('got', offset, text(data));
  if (JSON.parse(text(data)).end) client.disconnect();
});
sub.subscribe();
client.connect();
await sub.ready(60_000);
say('presence', Object.values((await sub.presence()).clients).map((c) => c.user).join());
await sub.publish(encode({ from: NAME }));
say('history', (await sub.history({ limit: 10 })).publications.map((p) => text(p.data)).join());
say('rpc', typeof JSON.parse(text((await client.rpc('time', encode({}))).data)).time);
const many = await Promise.all(Array.from({ length: 40 }, () => client.rpc('time', encode({}))));
say('calls', many.length);
if (protobuf) {
  const bytes = client.newSubscription(BYTES);
  const heard = new Promise((resolve) => { bytes.on('publication', ({ data }) => resolve(data)); });
  bytes.subscribe();
  await bytes.publish(Uint8Array.of(0, 255, 10));
  say('bytes', [...await heard].join());
  bytes.unsubscribe();
}
say('lost', failed);
say('ready');
