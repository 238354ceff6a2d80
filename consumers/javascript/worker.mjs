// Takes amount and currency, answers paymentStatus; the rules are in the README beside it.
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import amqp from "amqplib";

const { AMQP_URL, TASK_QUEUE = "payment-processing", PENDING_SECONDS = 5 } = process.env;
process.exitCode = 1; // unless it is told to stop

async function work({ retries, variables: { amount, currency }, variableTypes }, tell) {
  if (typeof amount !== "number") throw new TypeError("amount is no number");
  if (variableTypes.amount === "Long" && !Number.isSafeInteger(amount))
    throw new RangeError("amount is beyond 2^53, where JavaScript would round it");
  if (amount > 1000)
    return ["bpmnError", { errorCode: "PAYMENT_ERROR", errorMessage: `${amount}: over 1000` }];
  if (amount === 503 || (amount === 502 && retries === null))
    return ["failure", { errorMessage: `the payment gateway answered ${amount}` }];
  if (amount === 202) {
    await tell("extendLock", { newDuration: 600_000, variables: { paymentStatus: "pending" } });
    await sleep(PENDING_SECONDS * 1000);
  }
  return ["complete", { variables: { paymentStatus: `${amount} ${currency ?? "EUR"}` } }];
}

async function handle(message) {
  const { correlationId, messageId, replyTo } = message.properties;
  const tell = async (outcome, body) => {
    const echo = { correlationId, headers: { outcome }, persistent: true, mandatory: true };
    await publish("", replyTo, Buffer.from(JSON.stringify(body)), echo);
    console.log(outcome, messageId);
  };
  const task = async () => JSON.parse(message.content); // what it throws is a failure, too
  const failed = (error) => ["failure", { errorMessage: String(error) }];
  await tell(...(await task().then((t) => work(t, tell)).catch(failed)));
  channel.ack(message);
}

const connection = (await amqp.connect(AMQP_URL)).on("close", () => process.exit());
const channel = await connection.createConfirmChannel();
const publish = promisify(channel.publish).bind(channel); // settles with the broker's confirm
channel.on("return", () => process.exit()); // no queue took the answer; its confirm comes next
await channel.prefetch(10);
const inHand = new Set();
const { consumerTag } = await channel.consume(TASK_QUEUE, (message) => {
  if (message === null) process.exit(); // the queue is gone
  const job = handle(message).finally(() => inHand.delete(job));
  inHand.add(job);
});
process.once("SIGTERM", async () => {
  await channel.cancel(consumerTag);
  await Promise.all(inHand);
  await channel.close(); // the connection's own close can overtake the last acknowledgement
  process.exitCode = 0;
  await connection.close();
});
