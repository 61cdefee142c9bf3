// Drives Chromium for the tests in tests/api/browser.rs: `node drive.mjs`, with options as JSON on standard input:
//
//   chromium   the program
//   packages   the directory of the packages that package.json names
//   url        the page
//   scenarios  which ones to run, in this order: [{name, files}], with the paths of the files to upload
//
// Prints what the scenarios return, as JSON. A failure prints the reason and what the page shows.
import { createRequire } from "node:module";
import { basename } from "node:path";
import { text } from "node:stream/consumers";

import * as page from "./page.mjs";
import * as published from "./published.mjs";

const options = JSON.parse(await text(process.stdin));
const puppeteer = createRequire(`${options.packages}/package.json`)("puppeteer-core");

const browser = await puppeteer.launch({
  executablePath: options.chromium,
  // Root cannot use the sandbox, and containers have a small /dev/shm.
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  // Puppeteer would receive the body of each request as text, which takes seconds.
  networkEnabled: false,
  defaultViewport: { width: 800, height: 600, deviceScaleFactor: 2 },
});
try {
  const tab = await browser.newPage();
  tab.setDefaultTimeout(90_000);
  tab.session = await tab.createCDPSession();
  await tab.session.send("Network.enable", { maxPostDataSize: 1 });
  const problems = [];
  tab.on("pageerror", (error) => problems.push(`${error}`));
  tab.on("console", (message) => /Content Security Policy/.test(message.text()) && problems.push(message.text()));
  const results = [];
  for (const { name, files } of options.scenarios) {
    const run = { ...page, ...published }[name];
    const result = run(tab, { ...options, files, names: files.map((file) => basename(file)) });
    results.push(await result.catch(async (error) => {
      const pages = (await browser.pages()).map((tab) => tab.evaluate(() => document.body.innerText).catch(() => ""));
      const shown = (await Promise.all(pages)).join("\n--\n");
      throw new Error(`${name}: ${error.message}\nThe pages show:\n${shown}`, { cause: error });
    }));
  }
  if (problems.length) throw new Error(problems.join("\n"));
  console.log(JSON.stringify(results.map((result) => result ?? {})));
} finally {
  await browser.close();
}
