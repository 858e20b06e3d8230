"""
Kafka brokers in KRaft mode on loopback, each in its own folder, that can be killed, paused and restarted.

Maven fetches the jars once into the user's cache. Each node is both broker and controller.
"""

import base64
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from cli.supervisor import free_ports
from core.topics import TOPICS

POM = Path(__file__).with_name("pom.xml")
_START_SECONDS = 60.0  # a node takes about 5 s on an idle core


def obtain_jars() -> Path:
    """
    Return the folder of the broker's jars; Maven fetches them if this version of ``pom.xml`` is not cached yet.

    Raises:
        RuntimeError: if Java or Maven is missing, or if Maven fails; the message says which.
    """
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is not installed: Apache Kafka needs Java 17 or later, and Maven to fetch it")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whyflag"
    jars = cache / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if not jars.is_dir():
        partial = jars.with_suffix(f".{os.getpid()}")
        fetched = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime",
             f"-DoutputDirectory={partial}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if fetched.returncode:
            raise RuntimeError(f"Maven could not fetch Kafka's jars: {fetched.stdout[-2000:]}{fetched.stderr[-2000:]}")
        try:
            partial.rename(jars)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return jars


class Node:
    """One broker process."""

    def __init__(
        self, number: int, folder: Path, jars: Path, voters: list[tuple[int, int]], port: int, advertised: int, options: list[str],
        others: dict[str, object] | None = None, host: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        """
        ``voters`` are the (number, controller port) pairs of all nodes; clients are told to connect to port ``advertised`` of the
        address ``host``, where the broker listens. ``others`` overrides broker settings.
        """
        self.host, self.port, self._jars, self.folder, self._options = host, port, jars, folder, options
        folder.mkdir()
        self.log = folder / "broker.log"
        self.process: subprocess.Popen[bytes] | None = None
        replicas = min(3, len(voters))
        own = dict(voters)[number]
        settings = {
            "process.roles": "broker,controller",
            "node.id": number,
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{p}" for n, p in voters),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT",
            "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{own}",
            "advertised.listeners": f"PLAINTEXT://{host}:{advertised}",
            "log.dirs": folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": min(2, replicas),
            "min.insync.replicas": min(2, replicas),
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 2000,
            "log.cleaner.backoff.ms": 1000,  # compact early, so that tests see compacted logs
            **(others or {}),
        }
        self._settings = folder / "server.properties"
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def _java(self, main: str, *arguments: str, heap: str = "-Xmx512m") -> list[str]:
        return [
            "java", heap, *self._options, "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp", f"{self._jars}/*", main, *arguments,
        ]  # fmt: skip

    def format(self, cluster: str, *arguments: str) -> None:
        """Format the node's storage with the cluster id; call it once."""
        command = self._java(
            "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(self._settings), *arguments
        )
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Kafka's storage cannot be formatted: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def start(self) -> None:
        """Start the process; the broker answers a few seconds later."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._settings)), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """Send SIGSTOP: connections stay open but get no answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Terminate the process; kill it if it has not exited after 30 s."""
        if self.process is None or self.process.poll() is not None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


class KafkaCluster:
    """``with KafkaCluster(folder) as kafka: ... kafka.bootstrap``: a cluster whose ``nodes`` can be killed, paused, restarted."""

    def __init__(
        self, folder: Path, nodes: int = 1, advertised: list[int] | None = None, lasting: bool = False, host: str = "127.0.0.1"
    ) -> None:
        """
        ``advertised`` lists one proxy port per node; clients connect to it instead of the broker. A ``lasting`` broker starts
        more slowly but runs faster, because Java uses its full JIT compiler. Brokers listen on the address ``host``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * nodes)
        voters = [(n + 1, ports[n]) for n in range(nodes)]
        self._jars = obtain_jars()
        options = [] if lasting else ["-XX:TieredStopAtLevel=1"]
        self.nodes = [
            Node(
                n + 1,
                folder / f"node-{n + 1}",
                self._jars,
                voters,
                ports[nodes + n],
                (advertised or ports[nodes:])[n],
                options,
                host=host,
            )
            for n in range(nodes)
        ]
        self.bootstrap = ",".join(f"{host}:{port}" for port in advertised or ports[nodes:])
        self.behind = ",".join(f"{host}:{node.port}" for node in self.nodes)

    def __enter__(self) -> "KafkaCluster":
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        for node in self.nodes:
            node.format(cluster)
            node.start()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def wait(self) -> None:
        """Wait until the brokers answer."""
        self.wait_for(self.nodes)

    @staticmethod
    def wait_for(nodes: list[Node]) -> None:
        """Wait until the given brokers answer on the port passed to ``Node``."""
        servers = [f"{node.host}:{node.port}" for node in nodes]
        deadline = time.monotonic() + _START_SECONDS
        while True:
            for node in nodes:
                if node.process is not None and node.process.poll() is not None:
                    raise RuntimeError(f"a Kafka node exited while starting:\n{node.log.read_text()[-3000:]}")
            try:
                for node in nodes:  # kafka-python leaks its socket if nothing listens on the port yet
                    socket.create_connection((node.host, node.port), timeout=1).close()
                admin = KafkaAdminClient(bootstrap_servers=servers, bootstrap_timeout_ms=2000)
                try:
                    if len(admin.describe_cluster()["brokers"]) == len(nodes):
                        return
                finally:
                    admin.close()
            except (KafkaError, OSError):
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"Kafka did not answer in time:\n{nodes[0].log.read_text()[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop every node."""
        for node in self.nodes:
            node.stop()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def emptied(bootstrap: str) -> None:
    """Delete whyflag's topics, wait until they are gone, and delete all consumer groups."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
    try:
        ours = {topic.name for topic in TOPICS}
        if found := ours.intersection(admin.list_topics()):
            admin.delete_topics(sorted(found))
        deadline = time.monotonic() + 30
        while ours.intersection(admin.list_topics()) and time.monotonic() < deadline:
            time.sleep(0.1)
        groups = [group["group_id"] for group in admin.list_groups()]
        if groups:
            admin.delete_groups(groups)
    finally:
        admin.close()
