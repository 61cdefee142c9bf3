// A client for the HTTP API of the upload gateway that runs in a browser. The gateway signs requests, and this module
// sends the bytes straight to the store: S3 or Azure Blob Storage.
//
// It keeps nothing between calls. To pause, abort the signal; to resume, also after a reload of the page, call `upload`
// with the same file: the gateway finds the upload, and parts that the store has are not sent again.

import { md5 } from "./md5.js";

/** Files of at most this many bytes are put in one request, and `file_id` must be their MD5. */
const SMALL_FILE = 5_000_000;
/** How many parts are sent at once. */
const LANES = 3;
/** How often an upload is created because what this module knows of it is out of date. */
const MAX_STARTS = 3;
/** How long requests are retried without any success, and how long a commit may take, in milliseconds. */
const RETRY_TIMEOUT = 5 * 60_000;
/** How long a request to the store may move no byte, and a call of the gateway may take, in milliseconds. */
const STALL_TIMEOUT = 60_000;

/** A request failed: no answer (`status` is 0), or an error of the gateway or of the store (`fromStore`). */
export class RequestError extends Error {
  constructor(message, { status = 0, fromStore = false, body = {}, retryAfter = 0 }) {
    super(message);
    Object.assign(this, { status, fromStore, retryAfter, reason: body.reason, requestId: body.request_id });
  }

  /** Whether the same request may succeed later. */
  get isTemporary() {
    return [0, 408, 429, 502, 503, 504].includes(this.status) || (this.status === 500 && this.fromStore);
  }

  /** Whether the upload, its session, its parts or a signature are not what this module takes them for. */
  get isOutdated() {
    return [404, 409, 412].includes(this.status) || (this.status === 403 && this.fromStore);
  }
}

/**
 * Uploads `file`, and returns the id of the upload once the gateway has verified the stored object.
 *
 * `api` is the URL of the uploads, `signal` aborts the upload. `onProgress` is called with `{ id, sent, total }`: how many
 * bytes the store has, or are being sent; `onRetry` with the error after which a request will be repeated.
 */
export async function upload(file, options) {
  const job = new Job(file, options);
  for (let start = 1; ; start++) {
    try {
      return await job.run();
    } catch (error) {
      if (!error.isOutdated) throw error;
      // Another client, such as a second tab, may have finished the same file.
      if (job.id && (await job.isComplete())) return job.id;
      if (start === MAX_STARTS) throw error;
    }
  }
}

/** Aborts an upload that is not complete. The gateway deletes its parts. */
export async function cancel(id, { api }) {
  await callOnce(`${api}/${id}`, { method: "DELETE" });
}

/** One call of `upload`. */
class Job {
  constructor(file, options) {
    const defaults = { signal: new AbortController().signal, onProgress() {}, onRetry() {} };
    Object.assign(this, defaults, options, { file, id: null, lastSuccess: Date.now(), sentOfPart: new Map() });
  }

  async run() {
    const { file } = this;
    this.sentOfPart.clear();
    const head = await file.slice(0, SMALL_FILE).arrayBuffer();
    // The key by which the gateway finds the upload again. For a large file it can be any text that is different for
    // another file or after a change; the MD5 of all of it would take too long.
    const file_id = file.size > SMALL_FILE ? `${md5(head)}-${file.lastModified}` : md5(head);
    const metadata = { file_name: file.name, file_size: file.size, file_id, file_mime: file.type || undefined };
    const step = await this.call("POST", "", metadata);
    this.id = step.upload_id;
    if (step.type === "direct_upload") {
      await this.put(1, head, () => step);
      await this.retry(() => this.complete());
    } else {
      await this.putParts(step);
      await this.finish();
    }
    return this.id;
  }

  /** Sends the parts that the store does not have, some of them at once. */
  async putParts(step) {
    if (step.type === "chunked_upload") await this.beginSession(step.signature);
    // The gateway decides where parts end. On S3, the signature of a part covers its length.
    const size = step.part_size;
    const count = Math.ceil(this.file.size / size);
    // An array, or an object by part number if the gateway is configured so.
    const known = new Map(Object.values(step.part_data ?? []).map((part) => [part.part, part.md5]));
    const putPart = async (number) => {
      // Read once: what is hashed is what is sent, even if the file changes meanwhile.
      const bytes = await this.file.slice((number - 1) * size, number * size).arrayBuffer();
      const digest = md5(bytes);
      if (known.get(number) === digest) this.progress(number, bytes.byteLength);
      else await this.put(number, bytes, () => this.sign(number, digest));
    };
    let next = 1;
    const lane = async () => {
      while (next <= count) await putPart(next++);
    };
    const stop = (error) => {
      next = Infinity;
      throw error;
    };
    const lanes = Array.from({ length: LANES }, () => lane().catch(stop));
    // All lanes end before the upload is created again.
    const failed = (await Promise.allSettled(lanes)).find((lane) => lane.status === "rejected");
    if (failed) throw failed.reason;
  }

  /** Creates the session for parts. S3 names it in its answer; Azure has none, and any text will do. */
  async beginSession(signature) {
    let resumable_id = "none";
    if (signature.url) {
      // A retry may create a second session. The one that is not reported expires.
      const answer = await this.retry(() => this.send(signature, null));
      resumable_id = new DOMParser().parseFromString(answer, "text/xml").querySelector("UploadId")?.textContent;
    }
    await this.call("PATCH", `/${this.id}`, { resumable_id, part_update: true });
  }

  /** Puts a part, or a whole small file. A further try has a signature of its own, because a signature expires. */
  async put(number, bytes, sign) {
    await this.retry(async () => {
      this.progress(number, 0);
      const { signature } = await sign();
      await this.send(signature, bytes, { onSent: (sent) => this.progress(number, sent) });
    });
    this.progress(number, bytes.byteLength);
  }

  /** Makes the object of the parts, unless it exists: then there is no URL. A lost answer of the store does no harm. */
  async finish() {
    await this.retry(async () => {
      const { signature, body } = await this.sign("finish");
      let failure;
      if (signature.url) await this.send(signature, body, { timeout: RETRY_TIMEOUT }).catch((error) => (failure = error));
      await this.complete().catch((error) => {
        throw error.isOutdated && failure?.isTemporary ? failure : error;
      });
    });
  }

  sign(part, digest) {
    const parameters = new URLSearchParams(digest ? { part, file_id: digest } : { part });
    return callOnce(`${this.api}/${this.id}/edit?${parameters}`, { signal: this.signal });
  }

  /** Has the gateway verify the object. */
  complete() {
    return callOnce(`${this.api}/${this.id}`, { method: "PUT", signal: this.signal });
  }

  isComplete() {
    const fails = (error) => (error.isOutdated ? null : Promise.reject(error));
    return this.retry(() => this.complete()).catch(fails);
  }

  progress(number, bytes) {
    // The browser may report progress after an abort.
    if (this.signal.aborted) return;
    if (bytes > 0) this.lastSuccess = Date.now();
    this.sentOfPart.set(number, bytes);
    const sent = [...this.sentOfPart.values()].reduce((sum, bytes) => sum + bytes, 0);
    this.onProgress({ id: this.id, sent, total: this.file.size });
  }

  /** Calls the gateway until it answers. */
  call(method, path, body) {
    return this.retry(() => callOnce(this.api + path, { method, body: JSON.stringify(body), signal: this.signal }));
  }

  /** Repeats `action` after temporary failures, with a growing pause, and at once when the browser is online again. */
  async retry(action) {
    for (let pause = 250; ; pause = Math.min(2 * pause, 15_000)) {
      try {
        const result = await action();
        this.lastSuccess = Date.now();
        return result;
      } catch (error) {
        this.signal.throwIfAborted();
        if (!error.isTemporary || Date.now() - this.lastSuccess > RETRY_TIMEOUT) throw error;
        this.onRetry(error);
        // Random, so that clients that lost the same gateway do not return together.
        await waitFor(Math.max(1000 * error.retryAfter, pause * (0.5 + Math.random() / 2)), this.signal);
      }
    }
  }

  /** Sends a signed request without changes. Only XMLHttpRequest reports how many bytes were sent. */
  send({ verb, url, headers }, body, { onSent = () => {}, timeout = STALL_TIMEOUT } = {}) {
    return new Promise((resolve, reject) => {
      this.signal.throwIfAborted();
      const request = new XMLHttpRequest();
      const abort = () => request.abort();
      let stall = setTimeout(abort, timeout);
      request.upload.onprogress = ({ loaded }) => {
        clearTimeout(stall);
        stall = setTimeout(abort, timeout);
        onSent(loaded);
      };
      request.onloadend = () => {
        clearTimeout(stall);
        this.signal.removeEventListener("abort", abort);
        const { status, responseText } = request;
        if (status >= 200 && status < 300) return resolve(responseText);
        const message = status ? `the store answered ${status}` : "the store did not answer";
        // S3 answers 400 if a body did not arrive in time.
        const isLate = status === 400 && responseText.includes("RequestTimeout");
        reject(new RequestError(message, { status: isLate ? 408 : status, fromStore: true }));
      };
      this.signal.addEventListener("abort", abort);
      request.open(verb, url);
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.send(body);
    });
  }
}

/** Calls the gateway. */
async function callOnce(url, { signal, ...options }) {
  const timeout = AbortSignal.timeout(STALL_TIMEOUT);
  const both = signal ? AbortSignal.any([signal, timeout]) : timeout;
  const response = await fetch(url, { ...options, signal: both }).catch(() => {
    signal?.throwIfAborted();
    throw new RequestError("the gateway did not answer", {});
  });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const retryAfter = Number(response.headers.get("Retry-After"));
  throw new RequestError(body.error ?? "the gateway refused the call", { status: response.status, body, retryAfter });
}

/** Waits for this time, or until the browser is online again. */
async function waitFor(milliseconds, signal) {
  const end = AbortSignal.any([signal, AbortSignal.timeout(milliseconds)]);
  await new Promise((resolve) => {
    end.addEventListener("abort", resolve);
    addEventListener("online", resolve, { signal: end });
  });
  signal.throwIfAborted();
}
