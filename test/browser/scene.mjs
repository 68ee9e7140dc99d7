// What a scene's script shares with the Go test that started it: numbered lines on its output (step, ask, end), and answers on its input.
import { createInterface } from 'node:readline';
import { complaints, launch } from '../../web/scripts/driver.mjs';

const { ORIGIN, ARTIFACTS, SCENE } = process.env;
export const origin = ORIGIN;
export const artifacts = ARTIFACTS;
export const env = process.env;

let lines = 0;
const tell = (kind, text) => process.stdout.write(`${kind} ${++lines} ${text}\n`);
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export const step = (text) => tell('step', text);

/** Has the test do something to the system, and waits until it is done. */
export async function ask(...words) {
  tell('ask', words.join(' '));
  const { value, done } = await input.next();
  if (done) throw new Error('the test has gone');
  return value;
}

/** Runs a scene with a browser. Pages left open are photographed if it fails; a complaint fails it. */
export async function play(run) {
  const browser = await launch();
  try {
    await run(browser);
    if (complaints.length > 0) throw new Error('a page complained');
    tell('end', 'well');
  } catch (error) {
    process.stderr.write(`${error.stack ?? error}\n${complaints.join('\n')}\n`);
    process.exitCode = 1;
    let n = 0;
    for (const page of browser.contexts().flatMap((context) => context.pages()))
      await page.screenshot({ path: `${ARTIFACTS}/failed-${SCENE}-${++n}.png` }).catch(() => {});
  } finally {
    await browser.close();
    process.stdin.destroy();
  }
}
