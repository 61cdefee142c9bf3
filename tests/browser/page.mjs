// What a person does on the page of examples/browser.

/** Bytes per second at which an upload is slow enough to be interrupted. */
const SLOW = 6 * 1024 * 1024;

/** Uploads all files, and has the page compare their downloads. */
export async function upload(tab, { url, files, names }) {
  await tab.goto(url);
  await choose(tab, files);
  for (const name of names) {
    await until(tab, name, "complete");
    // By keyboard.
    await (await button(tab, name, "check")).focus();
    await tab.keyboard.press("Enter");
    await shows(tab, name, "identical");
    const href = await tab.$eval(`a[aria-label="Download ${name}"]`, (link) => link.href);
    if (!href.endsWith("/url")) throw new Error(`${href} is not a link to the file`);
  }
}

/** Reloads the page while parts are being sent, and chooses the same file again. */
export async function reload(tab, { url, files: [file], names: [name] }) {
  await tab.goto(url);
  await throttle(tab, { uploadThroughput: SLOW });
  const before = parts(tab);
  await choose(tab, [file]);
  await before.are(2);
  await tab.reload();
  before.stop();
  await shows(tab, name, "Choose the same file again");
  await throttle(tab, {});
  const after = parts(tab);
  await choose(tab, [file]);
  await until(tab, name, "complete");
  return { before: before.sent, after: after.sent };
}

/** Uploads the same new file in two tabs at once. */
export async function tabs(tab, { url, files: [file], names: [name] }) {
  const another = await tab.browser().newPage();
  another.setDefaultTimeout(tab.getDefaultTimeout());
  const both = [tab, another];
  await Promise.all(both.map((tab) => tab.goto(url)));
  await Promise.all(both.map((tab) => choose(tab, [file])));
  for (const tab of both) {
    // Puppeteer sees no changes of a page in the background.
    await tab.bringToFront();
    await until(tab, name, "complete");
  }
}

/** Has no network for ten seconds while parts are being sent. */
export async function offline(tab, { url, files: [file], names: [name] }) {
  await tab.goto(url);
  await throttle(tab, { uploadThroughput: SLOW });
  const sent = parts(tab);
  await choose(tab, [file]);
  await sent.are(1);
  await throttle(tab, { offline: true });
  await shows(tab, name, "did not answer. Trying again.");
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  // The page waits; the person does nothing.
  await until(tab, name, "uploading");
  await throttle(tab, {});
  await until(tab, name, "complete");
}

/** Pauses, resumes, cancels, and retries after an error of the gateway. */
export async function buttons(tab, { url, files: [paused, cancelled, failed], names }) {
  await tab.goto(url);
  await throttle(tab, { uploadThroughput: SLOW });
  let sent = parts(tab);
  await choose(tab, [paused]);
  await sent.are(2);
  await (await button(tab, names[0], "pause")).click();
  await until(tab, names[0], "paused");
  const before = sent.sent;
  sent.stop();
  sent = parts(tab);
  await throttle(tab, {});
  await (await button(tab, names[0], "resume")).click();
  await until(tab, names[0], "complete");
  sent.stop();

  await throttle(tab, { uploadThroughput: SLOW });
  const another = parts(tab);
  await choose(tab, [cancelled]);
  await another.are(1);
  await (await button(tab, names[1], "cancel")).click();
  await tab.waitForFunction((name) => !document.querySelector(`progress[aria-label="${name}"]`), {}, names[1]);
  await throttle(tab, {});

  await refuse(tab, new URL(url).origin);
  await choose(tab, [failed]);
  await until(tab, names[2], "failed");
  await shows(tab, names[2], "Report the request id 4711");
  await tab.session.send("Fetch.disable");
  await (await button(tab, names[2], "retry")).click();
  await until(tab, names[2], "complete");
  return { before, after: sent.sent };
}

/** Takes the picture for the README: a complete, a paused and an active upload. */
export async function picture(tab, { url, files, names, picture }) {
  await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
  await tab.goto(url);
  await choose(tab, [files[0]]);
  await until(tab, names[0], "complete");
  await (await button(tab, names[0], "check")).click();
  await shows(tab, names[0], "identical");
  await throttle(tab, { uploadThroughput: 4 * SLOW });
  await choose(tab, [files[1]]);
  await sentMost(tab, names[1]);
  await (await button(tab, names[1], "pause")).click();
  await choose(tab, [files[2]]);
  await sentMost(tab, names[2]);
  await tab.mouse.move(0, 0);
  await tab.$eval("#files", (input) => input.blur());
  await (await tab.$("main")).screenshot({ path: picture });
}

/** Counts the parts that the store has accepted, by their numbers. */
function parts(tab) {
  const sent = [];
  const count = ({ type, response: { url, status } }) => {
    const { searchParams } = new URL(url);
    const number = searchParams.get("partNumber") ?? searchParams.get("blockid");
    if (number && type === "XHR" && status < 300) sent.push(number);
  };
  tab.session.on("Network.responseReceived", count);
  return {
    sent,
    stop: () => tab.session.off("Network.responseReceived", count),
    async are(number) {
      const deadline = Date.now() + tab.getDefaultTimeout();
      while (sent.length < number && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
    },
  };
}

/** Answers creates with an error of the gateway. */
async function refuse(tab, gateway) {
  await tab.session.send("Fetch.enable", { patterns: [{ urlPattern: `${gateway}/api/*` }] });
  const body = btoa(JSON.stringify({ error: "internal error", request_id: "4711" }));
  tab.session.on("Fetch.requestPaused", ({ requestId, request }) => {
    const answer = { requestId, responseCode: 500, body };
    if (request.method === "POST") tab.session.send("Fetch.fulfillRequest", answer);
    else tab.session.send("Fetch.continueRequest", { requestId });
  });
}

async function choose(tab, files) {
  await (await tab.$("#files")).uploadFile(...files);
}

function button(tab, name, action) {
  return tab.waitForSelector(`li:has(progress[aria-label="${name}"]) [data-action="${action}"]`, { visible: true });
}

function until(tab, name, state) {
  return tab.waitForSelector(`li.${state}:has(progress[aria-label="${name}"])`);
}

function shows(tab, name, text) {
  const find = (name, text) =>
    document.querySelector(`li:has(progress[aria-label="${name}"]) .state`)?.textContent.includes(text);
  return tab.waitForFunction(find, {}, name, text);
}

/** Waits until most of a file was sent. */
function sentMost(tab, name) {
  const find = (name) => document.querySelector(`progress[aria-label="${name}"]`)?.value > 50;
  return tab.waitForFunction(find, {}, name);
}

async function throttle(tab, { offline = false, uploadThroughput = -1 }) {
  const conditions = { offline, uploadThroughput, downloadThroughput: -1, latency: 0 };
  await tab.session.send("Network.emulateNetworkConditions", conditions);
}
