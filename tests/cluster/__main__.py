"""``python -m tests.cluster``: build what the tests of the cluster need, while the network can be reached."""

import os
import subprocess
import sys

from core.metrics import VERSION
from tests.cluster import ARCHIVES, IMAGES
from tests.cluster.kubernetes import obtain_programs
from tests.conftest import ROOT
from tests.kafka import obtain_jars
from tests.kubernetes.schemas import obtain


def main() -> None:
    """Build Kubernetes and all images, and fetch Kafka and the definitions of the operators."""
    obtain_jars()
    obtain("go", "mvn")
    obtain_programs()
    print("building the images:", flush=True)
    store = ROOT / ".test_cache" / "images"
    subprocess.run([ROOT / "images" / "build", *IMAGES], check=True, env=os.environ | {"STORE": str(store)})
    ARCHIVES.mkdir(exist_ok=True)
    for program in IMAGES:
        archive = ARCHIVES / f"{program}.tar"
        archive.unlink(missing_ok=True)
        name = f"registry.example.org/whyflag-{program}:{VERSION}"
        subprocess.run(
            ["buildah", "--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay",
             "push", "--quiet", f"localhost/whyflag-{program}", f"docker-archive:{archive}:{name}"],
            check=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
