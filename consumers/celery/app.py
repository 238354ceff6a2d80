"""An ordinary Celery application: it charges cards for whoever sends a task, and knows nothing of
processes.  Its results go back to the caller (`rpc://`), its queue is Celery's own.
"""

import os
from decimal import Decimal

from celery import Celery

app = Celery(
    "app",
    broker=os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672//"),
    backend="rpc://",
)
app.conf.update(task_default_queue="charges", task_track_started=True)


@app.task
def charge(amount, currency="EUR"):
    if amount > 1000:
        raise ValueError(f"card declined: {amount} {currency}")
    return {"receipt": f"r-{amount}", "charged": Decimal(amount) / 100, "currency": currency}


@app.task
def rate(amount):
    return amount / 10


@app.task(ignore_result=True)
def remind(order):
    print(f"reminder sent for {order}")


@app.task(bind=True)
def settle(self, order):
    """The bank does not answer at first."""
    if self.request.retries < 2:
        self.update_state(state="PROGRESS", meta={"asked": self.request.retries + 1})
        raise self.retry(exc=TimeoutError("no answer"), countdown=0.5, max_retries=2)
    return {"settled": order, "asked": self.request.retries + 1}


@app.task
def refuse(order):
    """A business error, for an application that wants to speak of one."""
    return {"$outcome": "bpmnError", "errorCode": "REFUSED", "errorMessage": f"no credit: {order}"}
