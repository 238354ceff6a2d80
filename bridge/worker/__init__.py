"""Workers as plain Python functions.  Optional: whatever consumes from RabbitMQ is a worker.

Imports nothing of the service, which imports nothing of it: needs pika and pydantic only.

    import os
    from bridge.worker import BpmnError, Worker

    worker = Worker(os.environ["AMQP_URL"], prefetch=10)

    @worker.task("payment-processing")
    def pay(amount: float, currency: str | None = None) -> dict:
        if amount > 1000:
            raise BpmnError("PAYMENT_ERROR", "over 1000")
        return {"paymentStatus": f"{amount} {currency or 'EUR'}"}

    worker.run()
"""

from bridge.worker.consuming import Worker
from bridge.worker.functions import BpmnError, Outcome, Retry, Task

__all__ = ["BpmnError", "Outcome", "Retry", "Task", "Worker"]
