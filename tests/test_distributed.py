"""Two processes as torchrun starts them do what one does: the store's bytes, the weights, the metrics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import unseen
from unseen.backbones import BackboneSpec

JOB = """
import json, sys, unseen
from unseen.backbones import BackboneSpec
asked = json.loads(sys.argv[1])
spec = BackboneSpec(**asked.pop("backbone"))
unseen.fit(asked.pop("method"), asked.pop("dataset"), asked.pop("folder"), backbone=spec, device="cpu", **asked)
"""
RECIPE = {"epochs": "3", "batch_size": "9", "lr": "1e-3"}
CASES = {
    "msdn": {"method": "msdn", "preset": "cub", "recipe": RECIPE | {"lr": "1e-4"}},
    "msdnpp": {"method": "msdnpp", "recipe": RECIPE | {"average": "0.9"}, "protocols": ["honest", "paper"]},
    "msdnpp shuffled": {
        "method": "msdnpp",
        "preset": "cub",
        "settings": {"intervention": "shuffled", "lambda_causal": "0.5"},
        "recipe": RECIPE,
        "accumulate": 2,
    },
    "ale": {"method": "ale", "recipe": RECIPE},
    "dap": {"method": "dap"},
    "mgmrn": {
        "method": "mgmrn",
        "preset": "recommended",
        "settings": {"width": "32", "attention_width": "8", "grouping": "parts", "schedule": "progressive"},
        "recipe": RECIPE | {"batch_size": "4", "batches": "3"},
    },
}


@pytest.fixture(scope="module")
def asked(tiny_guide, tiny_backbone, tmp_path_factory):
    backbone = {k: v for k, v in tiny_backbone.to_json().items() if v is not None and k in ("name", "weights")}
    backbone |= {"image_size": 64, "options": {"output_stride": 16}}
    cache = str(tmp_path_factory.mktemp("cache"))
    return {"dataset": str(tiny_guide), "backbone": backbone, "precision": "64-true", "cache": cache}


def start(job, count=2, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    script = Path(job["folder"]).parent / "job.py"
    script.write_text(JOB)
    return subprocess.Popen(
        [*command, str(script), json.dumps(job)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def together(job, count=2):
    process = start(job, count)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def alone(job):
    job = dict(job)
    spec = BackboneSpec(**job.pop("backbone"))
    return unseen.fit(job.pop("method"), job.pop("dataset"), job.pop("folder"), backbone=spec, device="cpu", **job)


def measured(folder):
    found = json.loads((Path(folder) / "results.json").read_text())["protocols"]
    return {
        protocol: {name: values[name] for name in ("T1", "U", "S", "H", "AUSUC", "gamma")}
        for protocol in found
        for values in found[protocol]["seeds"].values()
    }


def equal_weights(one, other):
    files = sorted(f.name for f in (one / "seed-0").glob("*.safetensors"))
    assert files
    assert files == sorted(f.name for f in (other / "seed-0").glob("*.safetensors"))
    for file in files:
        first, second = load_file(one / "seed-0" / file), load_file(other / "seed-0" / file)
        assert set(first) == set(second)
        for name, values in first.items():
            np.testing.assert_allclose(second[name], values, rtol=0, atol=1e-12, err_msg=f"{file} {name}")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_with_the_weights_and_metrics_of_one(case, asked, tmp_path):
    job = asked | CASES[case]
    one, two = tmp_path / "one", tmp_path / "two"
    alone(job | {"folder": str(one)})
    together(job | {"folder": str(two)})
    equal_weights(one, two)
    for protocol, values in measured(one).items():
        assert measured(two)[protocol] == pytest.approx(values, abs=1e-12)
    for file in (one / "seed-0").glob("*.npz"):
        with np.load(file) as first, np.load(two / "seed-0" / file.name) as second:
            for name in first.files:
                assert len(first[name]) == len(second[name])
                if first[name].dtype.kind in "biu":
                    np.testing.assert_array_equal(first[name], second[name])
