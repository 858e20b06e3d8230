"""``python -m tests.cluster``: build what the tests of the cluster need, while the network can be reached."""

import os
import subprocess
import sys

from core.metrics import VERSION
from tests.cluster.kubernetes import obtain_programs
from tests.conftest import ROOT
from tests.kafka import obtain_jars
from tests.kubernetes.schemas import obtain

PROGRAMS = ("score", "explain", "archive", "console", "jobs")


def main() -> None:
    """Build Kubernetes and all images, and fetch Kafka and the definitions of the operators."""
    folder = ROOT / ".test_cache"
    obtain_jars()
    obtain("go", "mvn")
    obtain_programs()
    print("building the images:", flush=True)
    store = folder / "images"
    subprocess.run([ROOT / "images" / "build", *PROGRAMS], check=True, env=os.environ | {"STORE": str(store)})
    (folder / "cluster").mkdir(exist_ok=True)
    for program in PROGRAMS:
        archive = folder / "cluster" / f"{program}.tar"
        archive.unlink(missing_ok=True)
        name = f"registry.example.org/whyflag-{program}:{VERSION}"
        subprocess.run(
            ["buildah", "--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay",
             "push", "--quiet", f"localhost/whyflag-{program}", f"docker-archive:{archive}:{name}"],
            check=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
