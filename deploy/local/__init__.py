"""Real parts on this machine: a RabbitMQ node and a process engine, for the tests and the demo."""
