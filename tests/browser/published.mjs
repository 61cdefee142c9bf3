// PlaceOS's published client on a page, used as an application uses it.

/** Uploads the files with it, and returns the id and the last state of each upload. */
export async function published(tab, { url, files }) {
  const { origin, searchParams } = new URL(url);
  await load(tab, origin);
  const endpoint = `${searchParams.get("gateway")}/api/engine/v2/uploads`;
  const states = [];
  for (const file of files) {
    await (await tab.$("input")).uploadFile(file);
    states.push(await tab.evaluate(uploadOne, endpoint));
  }
  return states;
}

/** Loads the client and the packages that it needs. */
async function load(tab, origin) {
  const packages = `${origin}/packages`;
  await tab.goto(`${origin}/page/index.html`);
  await tab.addScriptTag({ url: `${packages}/rxjs/bundles/rxjs.umd.js` });
  const prepare = async (packages) => {
    document.body.innerHTML = '<input type="file">';
    window.operators = window.rxjs.operators;
    window.tsMd5 = await import(`${packages}/ts-md5/dist/esm/parallel_hasher.js`);
    window.worker = `${packages}/ts-md5/dist/md5_worker.js`;
  };
  await tab.evaluate(prepare, packages);
  await tab.addScriptTag({ url: `${packages}/@placeos/cloud-uploads/dist/cloud-uploads.umd.js` });
}

/** Runs in the page. */
async function uploadOne(endpoint) {
  const { Amazon, Azure, initialiseUploadService, registerUploadProvider, uploadFiles } = window.cloudUploads;
  initialiseUploadService({ endpoint, worker_url: window.worker, providers: [Amazon] });
  // The name that PlaceOS's API has for Azure today; the client has an older one.
  registerUploadProvider("AzureStorage", Azure);
  // On Azure the client never sends the commit. Each of its lanes ends with a report, and the last one is its end.
  let reports = 0;
  const original = window.fetch;
  const ended = new Promise((resolve) => {
    window.fetch = async (url, options) => {
      const response = await original(url, options);
      if (options?.method === "PATCH" && JSON.parse(options.body).part_update && ++reports === 3) resolve("reported");
      return response;
    };
  });
  const [upload] = uploadFiles([document.querySelector("input").files[0]]);
  const settled = new Promise((resolve) => {
    upload.status.subscribe(({ status, error }) => ["complete", "error"].includes(status) && resolve(error ?? status));
  });
  const end = await Promise.race([settled, ended]);
  window.fetch = original;
  return { id: upload.id, end };
}
