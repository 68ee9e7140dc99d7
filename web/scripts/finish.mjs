// After the build: writes a .br beside every text asset (the node serves it to browsers that take it) and fails when the first load, the
// script and style that index.html names, is over its budget.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const BUDGET = 150 * 1024;
const dist = new URL("../../node/page/dist/", import.meta.url);
const say = (bytes, what) => process.stdout.write(`${(bytes / 1024).toFixed(1).padStart(7)} KiB  ${what}\n`);

for (const name of readdirSync(dist, { recursive: true })) {
  if (!/\.(js|css|html|svg)$/.test(name)) continue;
  const body = readFileSync(new URL(name, dist));
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: body.length };
  const small = brotliCompressSync(body, { params });
  if (small.length < body.length) writeFileSync(new URL(`${name}.br`, dist), small);
}

const html = readFileSync(new URL("index.html", dist), "utf8");
const files = [...html.matchAll(/(?:src|href)="\/(assets\/[^"]+\.(?:js|css))"/g)].map((match) => match[1]);
if (files.length === 0) throw new Error("index.html names no assets");
let total = 0;
for (const file of files) {
  const size = gzipSync(readFileSync(new URL(file, dist)), { level: 9 }).length;
  total += size;
  say(size, file);
}
say(total, `first load, gzip; the budget is ${BUDGET / 1024} KiB`);
if (total > BUDGET) process.exit(1);
