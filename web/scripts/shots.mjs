// Every state of the page as a picture, both themes, two widths; axe, the console and overflow are checked on the way.
// Usage: npm run shots -- URL FOLDER [OPERATOR-URL]
import { mkdirSync } from "node:fs";
import { complaints, launch } from "./driver.mjs";
import { takeStates } from "./states.mjs";

const [url = "http://localhost:8080", folder = "../test/artifacts/page", operator] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const browser = await launch();
try {
  await takeStates({ browser, url, folder, operator, step: (text) => process.stdout.write(`${text}\n`) });
} finally {
  await browser.close();
  for (const complaint of complaints) process.stdout.write(`${complaint}\n`);
}
process.exit(complaints.length > 0 ? 1 : 0);
