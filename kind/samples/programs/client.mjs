// What client.py does, with Node: client.mjs URL [TIMES]
import { writeFileSync } from "node:fs";
import https from "node:https";
import { setTimeout as sleep } from "node:timers/promises";

const PAUSE = 5000;
const [url, times = "0"] = process.argv.slice(2);

function call() {
  return new Promise((resolve, reject) => {
    const request = https.get(url, { agent: false, timeout: 20000 }, (answer) => {
      const issuer = answer.socket.getPeerCertificate().issuer?.CN ?? null;
      answer.resume().on("end", () => resolve({ status: answer.statusCode, issuer }));
    });
    request.on("timeout", () => request.destroy(new Error("timed out"))).on("error", reject);
  });
}

let failed = 0;
for (let number = 0; times === "0" || number < Number(times); number++) {
  if (number) await sleep(PAUSE);
  let told;
  try {
    told = await call();
    writeFileSync("/tmp/ok", "");
  } catch (error) {
    failed++;
    told = { error: `${error.code ?? error.name}: ${error.message}` };
  }
  console.log(JSON.stringify({ client: "node", url, ...told }));
}
process.exitCode = failed ? 1 : 0;
