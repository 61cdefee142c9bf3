// Creates the container named on the command line in the account the environment names; one that exists is fine.
// Signs an account SAS: https://learn.microsoft.com/rest/api/storageservices/create-account-sas
import { createHmac } from "node:crypto";

const { AZURE_ENDPOINT: endpoint, AZURE_ACCOUNT: account, AZURE_ACCOUNT_KEY: key } = process.env;
const [container] = process.argv.slice(2);

const [version, permissions, services, resources] = ["2023-11-03", "c", "b", "c"];
const expiry = new Date(Date.now() + 300_000).toISOString().replace(/\.\d+/, "");
// Permissions, services, resource types, start, expiry, address, protocol, version, encryption scope.
const signed = [account, permissions, services, resources, "", expiry, "", "https,http", version, "", ""].join("\n");
const query = new URLSearchParams({
  restype: "container", sv: version, ss: services, srt: resources, sp: permissions, se: expiry, spr: "https,http",
  sig: createHmac("sha256", Buffer.from(key, "base64")).update(signed).digest("base64"),
});

const response = await fetch(`${endpoint}/${container}?${query}`, { method: "PUT" });
if (response.status !== 201 && response.status !== 409) {
  throw new Error(`creating container ${container}: ${response.status} ${await response.text()}`);
}
