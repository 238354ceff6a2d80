// Answers the tasks of topic payment-processing: amount, currency in, paymentStatus out.
// Over 1000 is the BPMN error PAYMENT_ERROR; 502 fails at the first attempt, 503 at every one;
// 202 stays pending for PENDING_SECONDS, which extendLock tells, and is paid then.
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import amqp from "amqplib";

const { AMQP_URL, TASK_QUEUE = "payment-processing", PENDING_SECONDS = 5 } = process.env;
const inHand = new Set();
process.exitCode = 1; // unless it is told to stop

async function work({ retries, variables: { amount, currency }, variableTypes }, tell) {
  if (typeof amount !== "number" || (variableTypes.amount === "Long" && !Number.isSafeInteger(amount)))
    throw new RangeError("amount is no number that JavaScript can hold"); // Longs beyond 2^53
  if (amount > 1000) return ["bpmnError", { errorCode: "PAYMENT_ERROR", errorMessage: `${amount}: over 1000` }];
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
  const tell = (outcome, body) => publish("", replyTo, Buffer.from(JSON.stringify(body)),
    { correlationId, headers: { outcome }, persistent: true, mandatory: true });
  const failed = (error) => ["failure", { errorMessage: String(error) }];
  const [outcome, body] = await Promise.resolve(message).then((m) => work(JSON.parse(m.content), tell)).catch(failed);
  await tell(outcome, body);
  channel.ack(message);
  console.log(outcome, messageId);
}

const connection = (await amqp.connect(AMQP_URL)).on("close", () => process.exit());
const channel = await connection.createConfirmChannel();
const publish = promisify(channel.publish).bind(channel); // settles with the broker's confirm
channel.on("return", () => process.exit()); // no queue took the answer, and it is confirmed next
await channel.prefetch(10);
const { consumerTag } = await channel.consume(TASK_QUEUE, (message) => {
  if (!message) process.exit(); // the queue is gone
  const job = handle(message).finally(() => inHand.delete(job));
  inHand.add(job);
});
process.once("SIGTERM", async () => {
  await channel.cancel(consumerTag);
  await Promise.all(inHand);
  process.exitCode = 0;
  await connection.close();
});
