"""What this machine has of the parts' programs, and the command that installs what it lacks.

Installs only where it is asked to, as root, with apt-get. Never starts nor stops a service of the
system: when a package starts one by itself, it says so and leaves it alone. Standard library only.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.local.engine_build import EngineKind, is_built
from deploy.local.programs import PartError, listens

Part = Literal["broker", "engine"]
JAVA_MINIMUM = 17
PROBE_LIMIT_S = 15
INSTALL_LIMIT_S = 900
AMQP_PORT = 5672
# Java comes with the engine.  By program: the Debian package that has it.
TOOLCHAINS = {
    "node": "nodejs",
    "npm": "npm",
    "go": "golang-go",
    "promtool": "prometheus",
    "chromium": "chromium",
}


@dataclass(frozen=True)
class System:
    """What exists here. `java` is its major version, 0 without any; `docker` means a daemon."""

    rabbitmq: bool = False
    java: int = 0
    build_tools: bool = False
    built_engines: frozenset[EngineKind] = frozenset()
    docker: bool = False
    can_install: bool = False
    toolchains: frozenset[str] = frozenset()

    def lacks(self, part: Part, kind: EngineKind = "camunda") -> tuple[str, ...]:
        """The Debian packages to install before this part can be started as a local program."""
        if part == "broker":
            return () if self.rabbitmq else ("rabbitmq-server",)
        has_java = self.java >= JAVA_MINIMUM
        if kind in self.built_engines:
            return () if has_java else ("default-jre-headless",)
        return () if has_java and self.build_tools else ("default-jdk-headless", "maven")

    def lacks_toolchains(self) -> tuple[str, ...]:
        """The Debian packages that only the tests need: other languages, Prometheus, a browser."""
        return tuple(TOOLCHAINS[name] for name in TOOLCHAINS if name not in self.toolchains)


def look() -> System:
    """The machine as it is now. Asks Docker's daemon, since the command alone proves nothing."""
    kinds: tuple[EngineKind, ...] = ("camunda", "operaton")
    return System(
        rabbitmq=Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists() and _has("epmd"),
        java=_java_version(),
        build_tools=_has("mvn") and _has("javac"),
        built_engines=frozenset(kind for kind in kinds if is_built(kind)),
        docker=_docker_answers(),
        can_install=os.geteuid() == 0 and _has("apt-get"),
        toolchains=frozenset(name for name in TOOLCHAINS if _has(name)),
    )


def install_command(packages: tuple[str, ...]) -> str:
    """What a user has to type to have these packages."""
    return f"sudo apt-get install -y --no-install-recommends {' '.join(packages)}"


def install(packages: tuple[str, ...]) -> list[str]:
    """Install Debian packages as root. Returns notes for the user; PartError when apt-get fails."""
    before = listens(AMQP_PORT)
    _apt_get("update")
    _apt_get("install", "-y", "--no-install-recommends", *packages)
    if listens(AMQP_PORT) and not before:
        return [
            f"the package started the system's own RabbitMQ on port {AMQP_PORT}; it is not used "
            "here and was left running (to end it: systemctl stop rabbitmq-server)"
        ]
    return []


def _apt_get(*arguments: str) -> None:
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments]
    # RUNLEVEL=1 asks the packages' scripts, for this call only, not to start their services.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartError(f"{' '.join(command)} failed: {error}") from error
    if done.returncode:
        raise PartError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")


def _has(program: str) -> bool:
    return shutil.which(program) is not None


def _java_version() -> int:
    found = re.search(r'version "(?:1\.)?(\d+)', _output("java", "-version"))
    return int(found.group(1)) if found else 0


def _docker_answers() -> bool:
    if importlib.util.find_spec("testcontainers") is None:
        return False
    return bool(re.match(r"\d", _output("docker", "version", "--format", "{{.Server.Version}}")))


def _output(*command: str) -> str:
    """Everything that a program prints, nothing when it is missing or does not end."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PROBE_LIMIT_S,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def main() -> int:
    """`python3 -m deploy.local.system [--install]`: exit code 0 when no program is lacking."""
    parser = argparse.ArgumentParser(prog="deploy.local.system", description=__doc__)
    parser.add_argument("--install", action="store_true", help="install what lacks (root, apt-get)")
    wanted = parser.parse_args().install
    system = look()
    if wanted and system.can_install:
        _install_all(system)
        system = look()
    lacking = _parts(system) + system.lacks_toolchains()
    print(f"RabbitMQ: {'installed' if system.rabbitmq else 'missing'}")
    print(f"Java: {system.java or 'missing'}; JDK and Maven: {_word(present=system.build_tools)}")
    for name, package in TOOLCHAINS.items():
        print(f"{name} ({package}): {_word(present=name in system.toolchains)}")
    print(f"engines built: {', '.join(sorted(system.built_engines)) or 'none'}")
    print(f"Docker daemon with testcontainers: {_word(present=system.docker)}")
    if lacking:
        print(f"to have what is missing: {install_command(lacking)}")
    return 1 if lacking else 0


def _parts(system: System) -> tuple[str, ...]:
    return system.lacks("broker") + system.lacks("engine")


def _install_all(system: System) -> None:
    # One by one: where a package of another origin stands in the way of a toolchain (npm comes with
    # some builds of Node.js), the parts are still had.
    for packages in (_parts(system), *((package,) for package in system.lacks_toolchains())):
        if packages:
            print(f"installing {' '.join(packages)} ...", flush=True)
            try:
                notes = install(packages)
            except PartError as error:
                notes = [str(error)]
            for note in notes:
                print(f"note: {note}")


def _word(*, present: bool) -> str:
    return "present" if present else "missing"


if __name__ == "__main__":
    raise SystemExit(main())
