"""The rules of payment_worker.py and transcode_worker.py, with the optional helper: two functions.

AMQP_URL says where RabbitMQ is; `pip install external-task-bridge[worker]` brings the helper.
"""

import asyncio
import os

from bridge.worker import BpmnError, Retry, Task, Worker

STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "60"))
worker = Worker(prefetch=10)


@worker.task("payment-processing")
def pay(task: Task, amount: int | float, currency: str | None = None) -> dict:
    if amount > 1000:
        raise BpmnError("PAYMENT_ERROR", f"{amount}: over 1000")
    if amount == 502 and task.headers.get("retries") is None:
        raise Retry("the payment gateway answered 502", after=1)
    if amount == 503:
        raise ConnectionError("the payment gateway answered 503")
    return {"paymentStatus": f"{amount} {currency or 'EUR'}"}


@worker.task("transcodeVideo")
async def transcode(video: str, task: Task) -> dict:
    for percent in (25, 50, 75):
        await asyncio.sleep(STEP_SECONDS)  # the work
        task.progress({"progress": percent})
    await asyncio.sleep(STEP_SECONDS)
    return {"transcodedVideo": f"{video}.webm"}


if __name__ == "__main__":
    worker.run()
