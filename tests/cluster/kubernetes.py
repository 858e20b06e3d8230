"""
A Kubernetes node without Docker: the control plane, a kubelet and containerd, each a process of this machine.

Go builds Kubernetes' programs once into the user's cache; etcd, containerd and the network plugins come from Debian's packages.
Everything listens on addresses of the network namespace that it is started in, which should be one without a way out.
"""

import hashlib
import json
import os
import secrets
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).parent
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
ADDRESS = "10.99.0.1"  # of the node; pods reach Kafka and PostgreSQL here
PAUSE = "localhost/pause:1"
_VERSION = " ".join(
    f"-X k8s.io/component-base/version.git{name}={value}"
    for name, value in (("Version", "v1.34.4"), ("Major", "1"), ("Minor", "34"))
)
_START_SECONDS = 120.0


def obtain_programs() -> Path:
    """
    Return the folder of Kubernetes' programs and the pause program; Go builds them if these versions are not cached yet.

    Raises:
        RuntimeError: if Go cannot build them; the message is Go's.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whyflag"
    folder = cache / f"kubernetes-{hashlib.sha256((HERE / 'go.mod').read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    print("Kubernetes is built once, which takes some minutes:", flush=True)
    partial = folder.with_suffix(f".{os.getpid()}")
    packages = [f"k8s.io/kubernetes/cmd/{program}" for program in PROGRAMS]
    for package in [*packages, "./pause"]:
        print(f"building {package} …", flush=True)
        static = {"CGO_ENABLED": "0"} if package == "./pause" else {}  # the pause program is alone in its image
        built = subprocess.run(
            ["go", "build", "-buildvcs=false", f"-ldflags=-s -w {_VERSION}", "-o", f"{partial}/", package],
            cwd=HERE, capture_output=True, text=True, env=os.environ | static,
        )  # fmt: skip
        if built.returncode:
            raise RuntimeError(f"Go could not build {package}: {built.stderr[-3000:]}")
    partial.rename(folder)
    return folder


class Cluster:
    """``with Cluster(folder) as cluster: cluster.kubectl("get", "nodes")``: one node whose pods can reach ``ADDRESS``."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is for data, logs and containers; it must not be on an overlay file system."""
        self.folder, self._bin = folder, obtain_programs()
        self._token = secrets.token_hex(16)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kubeconfig = folder / "kubeconfig"

    def __enter__(self) -> "Cluster":
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def kubectl(self, *arguments: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator of the cluster, with ``text`` as its standard input."""
        done = subprocess.run(
            [self._bin / "kubectl", *arguments], input=text, capture_output=True, text=True, env=self.environment, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a shell whose kubectl is the cluster's."""
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": f"{self._bin}:{os.environ['PATH']}"}

    def load(self, archive: Path) -> None:
        """Give the node the images of an archive that ``docker save`` or ``buildah push`` wrote."""
        self._ctr("images", "import", str(archive))

    def _ctr(self, *arguments: str) -> None:
        done = subprocess.run(
            ["ctr", "--address", self._containerd, "--namespace", "k8s.io", *arguments], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr[-2000:]}")

    @property
    def _containerd(self) -> str:
        return f"{self.folder}/containerd.sock"

    def _start(self) -> None:
        _network()
        self._write_files()
        self._run("etcd", "etcd", f"--data-dir={self.folder}/etcd", "--log-level=warn", "--unsafe-no-fsync")
        key = self.folder / "accounts.pem"
        self._run(
            "apiserver", self._bin / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--advertise-address={ADDRESS}",
            f"--cert-dir={self.folder}/certificates", f"--token-auth-file={self.folder}/tokens.csv", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://whyflag.invalid",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}", "--allow-privileged=false",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        self._until("the API server answers", lambda: self.kubectl("get", "--raw", "/readyz", check=False).stdout == "ok")
        access = f"--kubeconfig={self.kubeconfig}"
        self._run("controllers", self._bin / "kube-controller-manager", access, "--authentication-kubeconfig=", "--leader-elect=false",
                  f"--service-account-private-key-file={key}", f"--cert-dir={self.folder}/certificates",
                  "--use-service-account-credentials=false")  # fmt: skip
        self._run("scheduler", self._bin / "kube-scheduler", access, "--leader-elect=false", "--secure-port=0")
        self._run("containerd", "containerd", "--config", self.folder / "containerd.toml")
        self._until("containerd answers", self._contained)
        self._load_pause()
        self._run("kubelet", self._bin / "kubelet", access, f"--config={self.folder}/kubelet.yaml", f"--root-dir={self.folder}/kubelet",
                  f"--node-ip={ADDRESS}", "--hostname-override=node", f"--cert-dir={self.folder}/kubelet-certificates")  # fmt: skip
        ready = "-o=jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
        self._until("the node is ready", lambda: self.kubectl("get", "nodes", ready, check=False).stdout == "True")

    def _contained(self) -> bool:
        try:
            self._ctr("version")
        except RuntimeError:
            return False
        return True

    def _write_files(self) -> None:
        (self.folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        subprocess.run(["openssl", "genrsa", "-out", self.folder / "accounts.pem", "2048"], check=True, capture_output=True)
        cluster = {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": True}
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "node",
            "clusters": [{"name": "node", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "node", "context": {"cluster": "node", "user": "admin"}}],
        }))  # fmt: skip
        network = self.folder / "network"
        network.mkdir()
        (network / "10-bridge.conflist").write_text(json.dumps({
            "cniVersion": "0.4.0", "name": "pods",
            "plugins": [
                {"type": "bridge", "bridge": "pods", "isDefaultGateway": True,
                 "ipam": {"type": "host-local", "subnet": "10.88.0.0/16", "dataDir": f"{self.folder}/addresses"}},
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }))  # fmt: skip
        (self.folder / "containerd.toml").write_text(f"""
version = 2
root = "{self.folder}/containerd"
state = "{self.folder}/containerd-state"
[grpc]
  address = "{self._containerd}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_hugetlb_controller = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
""")
        (self.folder / "resolv.conf").write_text("")
        (self.folder / "kubelet.yaml").write_text(json.dumps({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self._containerd}", "cgroupDriver": "cgroupfs", "failSwapOn": False, "failCgroupV1": False,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "enforceNodeAllocatable": [], "cgroupsPerQOS": True,
            "resolvConf": str(self.folder / "resolv.conf"), "podLogsDir": str(self.folder / "logs"), "maxPods": 50,
            "imageGCHighThresholdPercent": 100,  # images cannot be pulled again
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        }))  # fmt: skip

    def _load_pause(self) -> None:
        """Make the image of the container that holds a pod's namespaces: a single program."""
        layer = self.folder / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            archive.add(self._bin / "pause", "pause")
        digest = hashlib.sha256(layer.read_bytes()).hexdigest()
        config = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
                  "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}  # fmt: skip
        (self.folder / "config.json").write_text(json.dumps(config))
        (self.folder / "manifest.json").write_text(
            json.dumps([{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}])
        )
        image = self.folder / "pause.tar"
        with tarfile.open(image, "w") as archive:
            for name in ("manifest.json", "config.json", "layer.tar"):
                archive.add(self.folder / name, name)
        self.load(image)

    def _run(self, name: str, *command: str | Path) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not holds():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended: {self._log(name)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not in {_START_SECONDS:.0f} s: {what}. " + "".join(map(self._log, self._processes)))
            time.sleep(0.5)

    def _log(self, name: str) -> str:
        return f"\n{name}:\n{(self.folder / f'{name}.log').read_text(errors='replace')[-2000:]}"

    def _stop(self) -> None:
        if "apiserver" in self._processes and self._processes["apiserver"].poll() is None:
            self.kubectl("delete", "deployment,job,pod", "--all", "--all-namespaces", "--now", "--wait", check=False)
        for process in reversed(self._processes.values()):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if f" {self.folder}/" in line]
        for place in reversed(mounted):
            subprocess.run(["umount", "--lazy", place], check=False)


def _network() -> None:
    """Give this network namespace the address of the node."""
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", "node", "type", "bridge"],
        ["ip", "address", "add", f"{ADDRESS}/24", "dev", "node"],
        ["ip", "link", "set", "node", "up"],
        ["ip", "route", "add", "default", "dev", "node"],
        ["sysctl", "-qw", "net.ipv4.ip_forward=1"],
    ):
        subprocess.run(command, check=True, capture_output=True)
