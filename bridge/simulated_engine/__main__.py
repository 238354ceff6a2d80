"""`python -m bridge.simulated_engine --port N`: a simulated engine until Ctrl-C or SIGTERM."""

import argparse
import signal
import sys
import threading

from bridge.simulated_engine import SimulatedEngine


def main() -> int:
    """Serve until told to stop; exit code 1 when the port is taken."""
    parser = argparse.ArgumentParser(prog="bridge.simulated_engine", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="port on 127.0.0.1 (default 8080)")
    port = parser.parse_args().port
    engine, stopping = SimulatedEngine(port=port), threading.Event()
    try:
        url = engine.start()
    except OSError as error:
        sys.stderr.write(f"port {port} cannot be used ({error}): choose another with --port\n")
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    sys.stdout.write(f"SIMULATED engine, not a real one: no database, all state is lost. {url}\n")
    sys.stdout.flush()
    stopping.wait()
    engine.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
