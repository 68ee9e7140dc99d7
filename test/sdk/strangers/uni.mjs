// The scene of strangers_test.go for a client of ten lines: those on docs/protocol.md, as they stand there.
import { readFileSync } from 'node:fs';
import WebSocket from 'ws';

const { URL: url, TOKEN: token, CHANNEL: channel } = process.env;
const [, lines] = readFileSync('../../docs/protocol.md', 'utf8').match(/```js uni\n([^]*?)```/);
const heard = (name, data) => {
  console.log('got', name, JSON.stringify(data));
  if (data.end) process.exit(0);
};
const refetch = (name) => console.log('refetch', name);
new Function('url', 'token', 'channel', 'heard', 'refetch', 'WebSocket', lines)(url, token, channel, heard, refetch, WebSocket);
