"""The samples of consumers/ as data: what each needs, how it is built and how it is run.

One place for whoever runs them: the matrix here, and the conformance kit.  Builds happen in the
cache, so that the tree stays clean.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.programs import PartError
from tests.consumers.stacks import CONSUMERS, built, run

HERE = "{folder}"


@dataclass(frozen=True)
class Sample:
    """A worker of topic payment-processing.  `build` and `run` are command lines in which
    `{folder}` is the folder with the sources, or a copy of it.  It reads AMQP_URL, TASK_QUEUE and
    PENDING_SECONDS.

    `in_folder`: its folder in consumers/, where that has another name.  `helped`: by bridge.worker,
    which answers copies that it has at once together, and does not end where no queue takes an
    answer: it tries again.
    """

    name: str
    client: str
    source: str
    needs: tuple[str, ...]
    cure: str
    run: tuple[str, ...]
    build: tuple[str, ...] = ()
    in_folder: str = ""
    holds_long: bool = True  # every integer of 64 bits
    helped: bool = False

    @property
    def folder(self) -> Path:
        return CONSUMERS / (self.in_folder or self.name)

    def command(self) -> tuple[str, ...]:
        """How to start it; built first where it must be and is not.  Raises PartError."""
        for program in self.needs:
            if shutil.which(program) is None:
                raise PartError(f"the {self.name} sample needs {program}: {self.cure}")
        return _in(self._built() if self.build else self.folder, self.run)

    def _built(self) -> Path:
        made = ("target", "node_modules")

        def build(target: Path, log: Path) -> None:
            shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns(*made))
            run(_in(target, self.build), log, self.cure)

        return built(self.name, [p for p in sorted(self.folder.iterdir()) if p.is_file()], build)


def _in(folder: Path, words: tuple[str, ...]) -> tuple[str, ...]:
    real = str(folder.resolve())  # npm misreads its project behind a symbolic link
    return tuple(word.replace(HERE, real) for word in words)


SAMPLES = (
    Sample(
        "python",
        client="pika",
        source="payment_worker.py",
        needs=(),
        cure="pip install pika",
        run=(sys.executable, f"{HERE}/payment_worker.py"),
    ),
    Sample(
        "helper",
        client="bridge.worker",
        source="helper_worker.py",
        needs=(),
        cure="pip install external-task-bridge[worker]",
        run=(sys.executable, f"{HERE}/helper_worker.py"),
        in_folder="python",
        helped=True,
    ),
    Sample(
        "javascript",
        client="amqplib",
        source="worker.mjs",
        needs=("node", "npm"),
        cure="apt-get install nodejs npm (Node.js 18 or newer)",
        build=("npm", "--prefix", HERE, "ci", "--loglevel=error", "--no-audit", "--no-fund"),
        run=("node", f"{HERE}/worker.mjs"),
        holds_long=False,
    ),
    Sample(
        "java",
        client="amqp-client",
        source="PaymentWorker.java",
        needs=("java", "mvn"),
        cure="apt-get install default-jdk-headless maven (Java 17 or newer)",
        build=("mvn", "-q", "-B", "-ntp", "-f", f"{HERE}/pom.xml", "package"),
        run=("java", "-XX:TieredStopAtLevel=1", "-jar", f"{HERE}/target/payment-worker.jar"),
    ),
    Sample(
        "go",
        client="amqp091-go",
        source="main.go",
        needs=("go",),
        cure="install Go 1.22 or newer (apt-get install golang-go where that is new enough)",
        build=("go", "build", "-C", HERE, "-o", "worker", "."),
        run=(f"{HERE}/worker",),
    ),
)
