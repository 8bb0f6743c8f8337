// One GET with Node's fetch; prints status, length and digest.
import { createHash } from "node:crypto";

const response = await fetch(process.argv[2], { signal: AbortSignal.timeout(8000) });
const body = Buffer.from(await response.arrayBuffer());
console.log(response.status, body.length, createHash("sha256").update(body).digest("hex"));
