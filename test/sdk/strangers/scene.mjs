// The scene of strangers_test.go, played by the public client from npm over Protobuf.
import { Centrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

const { URL, TOKEN, FRESH, CHANNEL, BYTES } = process.env;
const say = (...words) => console.log(words.join(' '));
const encode = (v) => new TextEncoder().encode(JSON.stringify(v));
const text = (data) => new TextDecoder().decode(data);

const client = new Centrifuge(URL, {
  websocket: WebSocket, protocol: 'protobuf', token: TOKEN, minReconnectDelay: 20, maxReconnectDelay: 300, timeout: 30_000,
  getToken: async () => { say('refreshed'); return FRESH; },
});
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
await sub.publish(encode({ from: 'npm' }));
say('history', (await sub.history({ limit: 10 })).publications.map((p) => text(p.data)).join());
say('rpc', typeof JSON.parse(text((await client.rpc('time', new Uint8Array())).data)).time);
const bytes = client.newSubscription(BYTES);
const heard = new Promise((resolve) => { bytes.on('publication', ({ data }) => resolve(data)); });
bytes.subscribe();
await bytes.publish(Uint8Array.of(0, 255, 10));
say('bytes', [...await heard].join());
bytes.unsubscribe();
say('ready');
