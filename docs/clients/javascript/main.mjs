// Requests a Job and prints its outcome. Usage: main.mjs [REQUEST]
import { connect, headers } from "@nats-io/transport-node";

const request = process.argv[2] ?? '{"foo":"javascript"}';
const wait = headers();
wait.set("Job-Wait", "outcome");

const client = await connect({ servers: process.env.NATS_URL });
const options = { timeout: 60_000, headers: wait };
const answer = await client.request("jobs.simple.submit", request, options);
await client.close();
const error = answer.headers?.get("Nats-Service-Error");
if (error) {
  console.error(error);
  process.exit(1);
}
console.log(answer.json().outcome.result);
