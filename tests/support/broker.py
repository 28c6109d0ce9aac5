"""Runs a command with a RabbitMQ at hand: `python broker.py COMMAND [ARGUMENT …]`.

The command finds it in TEST_AMQP_URL and, where the management plugin is there, in TEST_RABBITMQ_API.
A broker that TEST_AMQP_URL already names is used as it is. Otherwise one is started, and stopped
again however the command ends: a private node of an installed RabbitMQ (on a Debian machine root has
it installed), else a container. A broker that was not started here is never touched: the private node
has its own ports, its own epmd, its own cookie and folder, and listens on the loopback only.

Only the standard library is used, so that it runs before anything is installed.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from random import SystemRandom
from types import FrameType

IMAGE = "rabbitmq:4-management"
STARTUP = 120  # seconds; a loaded machine with two cores has taken 30
ADVICE = """\
The tests need a RabbitMQ, and there is none that they could start. One of these helps:
  - install RabbitMQ (on Debian as root: apt-get install rabbitmq-server); it need not be running
  - have Docker running; the image rabbitmq:4-management is then used
  - TEST_AMQP_URL=amqp://user:password@host:5672/vhost names a broker that may be written to"""

CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {api}
# A full disk or a busy machine is no reason to block the publishers of a test.
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.9
"""


class BrokerError(Exception):
    """No broker could be had; the message says why."""


def main(command: list[str]) -> int:
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    try:
        with broker() as found:
            return run(command, {**os.environ, **found})
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _stop(number: int, _frame: FrameType | None) -> None:
    """Unwinds the stack, so that every `finally` is run, as Ctrl-C does."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def run(command: list[str], environment: dict[str, str]) -> int:
    """Runs the command; when it is this process that is stopped, the command is stopped first."""
    process = subprocess.Popen(command, env=environment)
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            continue  # the terminal has sent Ctrl-C to the command as well: let it finish
        except SystemExit:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()
            raise
        return code if code >= 0 else 128 - code


@contextlib.contextmanager
def broker() -> Iterator[dict[str, str]]:
    """A broker for as long as the context lasts, as variables for the environment."""
    if os.environ.get("TEST_AMQP_URL"):
        yield {}
        return
    server = installed_server() or (installed_server() if install() else None)
    if server:
        with node(server) as found:
            yield found
    elif container_engine():
        with container() as found:
            yield found
    else:
        raise BrokerError(ADVICE)


def installed_server() -> Path | None:
    """The start script of an installed RabbitMQ.

    Debian's own script comes first: the one that it puts on the PATH is a wrapper which changes to the
    user rabbitmq, who may not write to the private node's folder.
    """
    debian = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if debian.exists():
        return debian
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
    found = shutil.which("rabbitmq-server", path=path)
    return Path(found).resolve() if found else None


def install() -> bool:
    """Installs Debian's package, where that is possible, without letting it start a service."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print("broker: installing rabbitmq-server", file=sys.stderr)
    # Debian's way to say what packages may start; a machine that has a policy keeps its own.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    try:
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        for command in (["update"], ["install", "-y", "--no-install-recommends", "rabbitmq-server"]):
            done = subprocess.run(
                ["apt-get", "-qq", *command],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                print(done.stderr.strip(), file=sys.stderr)
                return False
    finally:
        if ours:
            policy.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def node(server: Path, arguments: str = "") -> Iterator[dict[str, str]]:
    """A private node of an installed RabbitMQ, and an epmd of its own, in a folder that is then removed.

    `arguments` are Erlang's, such as `-rabbit consumer_timeout 3000`.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True))
        )
        amqp, api, environment = prepare(server, folder, arguments)
        log = folder / "output"
        with log.open("wb") as output:
            if daemon := shutil.which("epmd"):  # otherwise the node starts one that outlives it
                start(stack, [daemon], environment, output.fileno())
            process = start(stack, [str(server)], environment, output.fileno())

        def failed() -> str | None:
            return log.read_text(errors="replace")[-3000:] if process.poll() is not None else None

        wait_until(lambda: speaks_amqp(amqp), "RabbitMQ", failed)
        # The pid is also that of its process group.
        found = {
            "TEST_AMQP_URL": f"amqp://guest:guest@127.0.0.1:{amqp}/",
            "TEST_RABBITMQ_PID": str(process.pid),
        }
        if has_plugin(server, "rabbitmq_management"):
            wait_until(lambda: api_answers(api), "RabbitMQ's HTTP API", failed)
            found["TEST_RABBITMQ_API"] = f"http://guest:guest@127.0.0.1:{api}"
        yield found


def prepare(server: Path, folder: Path, arguments: str = "") -> tuple[int, int, dict[str, str]]:
    """Write a private node's configuration. Returns its ports (AMQP, HTTP) and its environment."""
    amqp, api, distribution, epmd = free_ports(4)
    management = has_plugin(server, "rabbitmq_management")
    configuration = CONFIGURATION.format(amqp=amqp, api=api)
    if not management:  # an unknown key would stop the node
        configuration = "".join(
            line for line in configuration.splitlines(True) if not line.startswith("management.")
        )
    (folder / "rabbitmq.conf").write_text(configuration)
    (folder / "enabled_plugins").write_text("[rabbitmq_management].\n" if management else "[].\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
    environment |= {
        "HOME": str(folder),  # where Erlang keeps its cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_NODE_PORT": str(amqp),
        "RABBITMQ_NODENAME": f"test-{secrets.token_hex(4)}@localhost",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} " + arguments,
    }
    return amqp, api, environment


def start(
    stack: contextlib.ExitStack, command: list[str], environment: dict[str, str], output: int
) -> subprocess.Popen[bytes]:
    """Starts a process that ends with the stack.

    It gets a session of its own, so that Ctrl-C in the terminal does not stop it before the tests; on
    Linux the kernel ends it, should this process be killed outright.
    """
    tie = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    process = subprocess.Popen(
        [*tie, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )

    def stop() -> None:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    stack.callback(stop)
    return process


def has_plugin(server: Path, name: str) -> bool:
    """Whether the installation brings the plugin along, in `../plugins` beside its scripts."""
    return any((server.resolve().parent.parent / "plugins").glob(f"{name}-*"))


def free_ports(count: int) -> list[int]:
    """Ports that are free now, no two the same, of those that no system gives to outgoing connections: one
    of these could be taken by such a connection before it is bound."""
    chance, ports = SystemRandom(), set[int]()  # what tests seed would be the same in all processes
    while len(ports) < count:
        port = chance.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.add(port)
    return list(ports)


def speaks_amqp(port: int) -> bool:
    """Whether a broker answers a client's greeting with its first frame (Connection.Start)."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"AMQP\0\0\x09\x01")
        return connection.recv(1) == b"\x01"
    return False


def api_answers(port: int) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/overview")
    request.add_header("Authorization", f"Basic {base64.b64encode(b'guest:guest').decode()}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), direct.open(request, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def wait_until(ready: Callable[[], bool], what: str, failed: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + STARTUP
    while not ready():
        if (reason := failed()) is not None:
            raise BrokerError(f"{what} did not start:\n{reason}")
        if time.monotonic() > deadline:
            raise BrokerError(f"{what} was not ready within {STARTUP} s")
        time.sleep(0.2)


def container_engine() -> bool:
    """Whether Docker is not only installed but answers."""
    if not shutil.which("docker"):
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        return docker("version", "--format", "{{.Server.Version}}", timeout=20).returncode == 0
    return False


@contextlib.contextmanager
def container() -> Iterator[dict[str, str]]:
    """The same broker out of an image, on ports that Docker picks."""
    name = f"feedback-loop-test-{secrets.token_hex(4)}"
    publish = ["--publish", "127.0.0.1::5672", "--publish", "127.0.0.1::15672"]
    try:
        done = docker("run", "--detach", "--rm", "--name", name, *publish, IMAGE, timeout=600)
        if done.returncode:
            raise BrokerError(f"docker run {IMAGE}: {done.stderr.strip()}")
        amqp, api = (
            int(docker("port", name, port).stdout.split()[0].rpartition(":")[2]) for port in ("5672", "15672")
        )

        def failed() -> str | None:
            return None if docker("inspect", name).returncode == 0 else "the container has ended"

        wait_until(lambda: speaks_amqp(amqp), "RabbitMQ", failed)
        wait_until(lambda: api_answers(api), "RabbitMQ's HTTP API", failed)
        yield {
            "TEST_AMQP_URL": f"amqp://guest:guest@127.0.0.1:{amqp}/",
            "TEST_RABBITMQ_API": f"http://guest:guest@127.0.0.1:{api}",
        }
    finally:
        docker("rm", "--force", name)


def docker(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(sys.argv[1:]))
