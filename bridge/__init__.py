"""The bridge between a BPMN engine's external tasks and RabbitMQ."""

__version__ = "0.1.0"
