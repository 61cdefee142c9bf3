// The page: a row for each file. `upload.js` does the work.

import { isIdentical } from "./sha256.js";
import { cancel, upload } from "./upload.js";

/** How many files are uploaded at once. */
const MAX_ACTIVE = 2;
/** Over how many milliseconds the rate is measured. */
const RATE_WINDOW = 5_000;

// The gateway that serves the page, or, for a copy of the page elsewhere, the one that `?gateway=http://…` names.
const gateway = new URLSearchParams(location.search).get("gateway") ?? location.origin;
const api = `${gateway}/api/engine/v2/uploads`;

/** The start of the keys of uploads in the local storage, from which a reloaded page lists those that are not complete. */
const PREFIX = `upload ${api} `;

/** Rows by the key of their file. */
const rows = new Map();
const list = document.querySelector("#uploads");
const announcement = document.querySelector("#announcement");

/** Which buttons a row has. */
const ACTIONS = {
  waiting: ["pause", "cancel"],
  uploading: ["pause", "cancel"],
  paused: ["resume", "cancel"],
  failed: ["retry", "cancel"],
  missing: ["cancel"],
  complete: ["check", "download", "remove"],
  checking: ["download"],
};

/** One file. */
class Row {
  constructor(key, name, size) {
    Object.assign(this, { key, name, size, id: null, sent: 0, samples: [] });
    this.element = document.querySelector("#row").content.firstElementChild.cloneNode(true);
    this.find(".name").textContent = name;
    this.find("progress").ariaLabel = name;
    for (const button of this.element.querySelectorAll("[data-action]")) {
      button.ariaLabel = `${button.textContent} ${name}`;
      button.addEventListener("click", () => this[button.dataset.action]());
    }
    this.find("a").ariaLabel = `Download ${name}`;
    list.append(this.element);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Shows a state, with the buttons that it has. */
  show(state, text) {
    if (state !== this.state && state !== "uploading") announcement.textContent = `${this.name}: ${text}`;
    this.state = state;
    this.element.className = state;
    this.find(".state").textContent = text;
    for (const button of this.element.querySelectorAll("[data-action]")) {
      button.hidden = !ACTIONS[state].includes(button.dataset.action);
    }
    this.find("a").hidden = !ACTIONS[state].includes("download");
    this.showBar();
  }

  showBar() {
    this.find("progress").value = this.size ? (100 * this.sent) / this.size : Number(this.state === "complete") * 100;
  }

  /** Waits for its turn, then uploads. */
  resume() {
    this.show("waiting", "Waiting for other files");
    startNext();
  }

  retry() {
    this.resume();
  }

  pause() {
    this.controller?.abort();
    this.show("paused", `Paused. ${amount(this)}`);
    startNext();
  }

  async cancel() {
    this.controller?.abort();
    try {
      if (this.id) await cancel(this.id, { api });
      this.remove();
    } catch (error) {
      this.show("failed", `Cancel failed: ${advice(error)}`);
    }
    startNext();
  }

  remove() {
    localStorage.removeItem(this.key);
    rows.delete(this.key);
    this.element.remove();
    document.querySelector("#files").focus();
  }

  async start() {
    const controller = new AbortController();
    Object.assign(this, { controller, samples: [] });
    this.show("uploading", "Starting");
    try {
      const onProgress = (progress) => this.measure(progress);
      const onRetry = (error) => this.show("uploading", `${amount(this)}. ${sentence(error.message)} Trying again.`);
      this.id = await upload(this.file, { api, signal: controller.signal, onProgress, onRetry });
      this.finish();
    } catch (error) {
      // Paused or cancelled; a later call of `start` may be active already.
      if (controller.signal.aborted) return;
      this.show("failed", advice(error));
    }
    startNext();
  }

  /** Shows how much was sent, how fast, and how long the rest will take. */
  measure({ id, sent }) {
    Object.assign(this, { id, sent });
    localStorage.setItem(this.key, JSON.stringify({ id, name: this.name, size: this.size, sent }));
    const now = performance.now();
    this.samples = [...this.samples.filter(([time]) => now - time < RATE_WINDOW), [now, sent]];
    const [[firstTime, firstSent]] = this.samples;
    const rate = (1000 * (sent - firstSent)) / (now - firstTime);
    const speed = rate > 0 ? `, ${bytes(rate)}/s, ${duration((this.size - sent) / rate)} left` : "";
    this.show("uploading", amount(this) + speed);
  }

  finish() {
    localStorage.removeItem(this.key);
    this.sent = this.size;
    this.find("a").href = `${api}/${this.id}/url`;
    this.show("complete", `Complete, ${bytes(this.size)}`);
  }

  /** Downloads the file and compares it with the chosen one. */
  async check() {
    this.show("checking", "Downloading the file to compare it");
    try {
      const isSame = await isIdentical(this.file, `${api}/${this.id}/download`);
      const text = isSame ? "the download is identical (SHA-256)" : "THE DOWNLOAD IS DIFFERENT: upload the file again";
      this.show("complete", `Complete, ${bytes(this.size)}: ${text}`);
    } catch (error) {
      this.show("complete", `Complete, but not compared: ${advice(error)}`);
    }
  }
}

function add(file) {
  // The same name, size and time mean the same file: then the upload continues.
  const key = `${PREFIX}${file.name} ${file.size} ${file.lastModified}`;
  let row = rows.get(key);
  if (row?.state === "complete") {
    row.remove();
    row = undefined;
  }
  row ??= new Row(key, file.name, file.size);
  rows.set(key, row);
  row.file = file;
  if (!["uploading", "waiting"].includes(row.state)) row.resume();
}

function startNext() {
  const all = [...rows.values()];
  const active = all.filter((row) => row.state === "uploading").length;
  all.filter((row) => row.state === "waiting").slice(0, Math.max(0, MAX_ACTIVE - active)).forEach((row) => row.start());
}

/** What happened, and what to do next. */
function advice(error) {
  if (["NotReadableError", "NotFoundError"].includes(error.name)) return "The file was changed or moved. Choose it again.";
  if (error.status === 0 && error.fromStore)
    return "The store does not answer. Check the network and press Retry. If it never works, the store needs a CORS rule: run “upload-gateway doctor”.";
  if (error.status === 0) return "The gateway does not answer. Check the network and press Retry.";
  if (error.requestId) return `The gateway failed. Report the request id ${error.requestId}.`;
  if (error.status === 413) return "The file is too large for this gateway. Choose a smaller one.";
  if (error.status === 429 || error.status >= 500) return "The gateway or the store is overloaded. Press Retry in a minute.";
  if (error.status === 403) return "The store refused the signature. Check the clocks of the gateway and the store, and press Retry.";
  if (error.status === 400) return `${sentence(error.message)} Choose another file.`;
  return `${sentence(error.message)} Press Retry.`;
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
}

function amount({ sent, size }) {
  return `${bytes(sent)} of ${bytes(size)}`;
}

function bytes(count) {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, count)) / 10));
  const digits = power === 0 ? 0 : 1;
  return `${(count / 1024 ** power).toFixed(digits)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  if (seconds < 3600) return `${Math.ceil(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.ceil((seconds % 3600) / 60)} min`;
}

for (const key of Object.keys(localStorage).filter((key) => key.startsWith(PREFIX))) {
  const { id, name, size, sent } = JSON.parse(localStorage.getItem(key));
  const row = new Row(key, name, size);
  Object.assign(row, { id, sent });
  rows.set(key, row);
  row.show("missing", `${amount(row)}. Choose the same file again to resume.`);
}

const drop = document.querySelector("#drop");
document.querySelector("#files").addEventListener("change", ({ target }) => {
  [...target.files].forEach(add);
  // The same file can be chosen again.
  target.value = "";
});
// A file that misses the field must not replace the page.
for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
drop.addEventListener("dragover", () => drop.classList.add("over"));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", ({ dataTransfer }) => {
  drop.classList.remove("over");
  [...dataTransfer.files].forEach(add);
});
