"""A Kubernetes node on this machine, on which the deployment guide is executed with the images."""

from tests.conftest import ROOT

PROGRAMS = ("score", "explain", "archive", "console")
IMAGES = (*PROGRAMS, "jobs")
ARCHIVES = ROOT / ".test_cache" / "cluster"  # of the images, made by `python -m tests.cluster`
