"""A JobSet on GKE: fill in launch/gke/{tpu,gpu}.yaml and apply it.

    export GKE_IMAGE=... GKE_CLAIM=share        # the image, and a ReadWriteMany volume claim
    python -m launch.gke tpu --name=tga-7b --accelerator=tpu-v5-lite-podslice --topology=4x4 \\
        --hosts=4 --chips=4 -- --config=configs/llava_mistral_7b.py --workdir=/share/runs/tga-7b
    kubectl logs -f job/tga-7b-slice-0
    kubectl delete jobset tga-7b

A pod that is preempted or lost restarts the whole set, up to 100 times. --dry-run prints the
manifest and the command. The cluster needs the JobSet controller.
"""

from __future__ import annotations

import argparse
import json
import os
import string
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

APPLY = ["kubectl", "apply", "-f", "-"]


def main(argv: Sequence[str]) -> int:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("kind", choices=("tpu", "gpu"))
    parser.add_argument("--name", required=True)
    parser.add_argument("--accelerator", required=True, help="as GKE's node label has it")
    parser.add_argument("--topology", default="", help="of a TPU slice, as 4x4")
    parser.add_argument("--hosts", type=int, required=True, help="of a slice, or GPU nodes")
    parser.add_argument("--chips", type=int, required=True, help="of a host")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("flags", nargs="+", help="-- and the flags of tga_jax.main")
    given = parser.parse_args(argv[1:])
    if given.kind == "tpu" and not given.topology:
        parser.error("a TPU slice needs --topology")
    for variable in ("GKE_IMAGE", "GKE_CLAIM"):
        if not os.environ.get(variable):
            parser.error(f"set {variable} in the environment")
    text = manifest(given)
    if given.dry_run:
        print(f"# {' '.join(APPLY)}\n{text}", end="")
        return 0
    return subprocess.run(APPLY, input=text, text=True).returncode


def manifest(given: argparse.Namespace) -> str:
    """The YAML, with every blank filled in."""
    path = Path(__file__).with_name("gke") / f"{given.kind}.yaml"
    return string.Template(path.read_text(encoding="utf-8")).substitute(
        name=given.name,
        image=json.dumps(os.environ["GKE_IMAGE"]),
        claim=json.dumps(os.environ["GKE_CLAIM"]),
        accelerator=json.dumps(given.accelerator),
        topology=json.dumps(given.topology),
        hosts=given.hosts,
        chips=given.chips,
        slices=given.slices,
        flags=json.dumps(
            [*given.flags, f"--config.distributed.hosts={given.hosts * given.slices}"]
        ),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
