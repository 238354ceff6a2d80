"""The rules of payment_worker.py and transcode_worker.py, with the optional helper: two functions.

AMQP_URL says where RabbitMQ is; `pip install external-task-bridge[worker]` brings the helper.
"""

import asyncio
import logging
import os
import time

from bridge.worker import BpmnError, Retry, Task, Worker

STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "60"))
PENDING_SECONDS = float(os.environ.get("PENDING_SECONDS", "5"))
worker = Worker(prefetch=10)


@worker.task(os.environ.get("TASK_QUEUE", "payment-processing"))
def pay(task: Task, amount: int | float, currency: str | None = None) -> dict:
    if amount > 1000:
        raise BpmnError("PAYMENT_ERROR", f"{amount}: over 1000")
    if amount == 503 or (amount == 502 and task.headers.get("retries") is None):
        raise Retry(f"the payment gateway answered {amount}")
    if amount == 202:
        task.progress({"paymentStatus": "pending"})
        time.sleep(PENDING_SECONDS)  # in a thread of its own: nothing else waits
    return {"paymentStatus": f"{amount} {currency or 'EUR'}"}


@worker.task("transcodeVideo")
async def transcode(video: str, task: Task) -> dict:
    for percent in (25, 50, 75):
        await asyncio.sleep(STEP_SECONDS)  # the work
        task.progress({"progress": percent})
    await asyncio.sleep(STEP_SECONDS)
    return {"transcodedVideo": f"{video}.webm"}


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("bridge.worker").setLevel(logging.INFO)  # a line for each answer
    worker.run()
