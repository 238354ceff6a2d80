// The official JavaScript client on one topic: node peer.mjs ENGINE_URL TOPIC [tell].
// Completes every task; with `tell` it prints of each its receipt and its creation.
import { Client, Variables } from "camunda-external-task-client-js";

const [baseUrl, topic, tell] = process.argv.slice(2);
const interval = Number(process.env.PEER_INTERVAL_MS ?? 300); // 300 is the client's own default
const client = new Client({
  baseUrl,
  workerId: "javascript",
  maxTasks: 100,
  asyncResponseTimeout: 10_000,
  lockDuration: 600_000,
  interval,
  autoPoll: false,
});
client.subscribe(topic, async ({ task, taskService }) => {
  if (tell) {
    const told = JSON.stringify({ createTime: task.createTime });
    console.log(`${topic}\t${performance.timeOrigin + performance.now()}\t${told}`);
  }
  await taskService.complete(task, new Variables().set("ok", true));
});
console.log("ready");
client.start();
