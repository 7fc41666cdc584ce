"""Two processes as torchrun starts them do what one does: the store's bytes, the weights, the metrics."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import unseen
from unseen.backbones.spec import BackboneSpec
from unseen.ground import distributed
from unseen.methods.share import Share, batch_size, exchange, random_rows, sharing
from unseen.training.batches import ahead, own_batches
from unseen.training.engine import Interrupted

RECIPE = {"epochs": "2", "batch_size": "9", "lr": "1e-3"}
JOBS = {
    "msdn": {"method": "msdn", "preset": "cub", "recipe": RECIPE | {"lr": "1e-4"}},
    "msdnpp": {"method": "msdnpp", "recipe": RECIPE | {"average": "0.9"}, "protocols": ["honest", "paper"], "draws": 2},
    "shuffled": {
        "method": "msdnpp",
        "preset": "cub",
        "settings": {"intervention": "shuffled", "lambda_causal": "0.5"},
        "recipe": RECIPE,
        "accumulate": 2,
    },
    "permuted": {
        "method": "msdnpp",
        "settings": {"intervention": "permuted", "counterfactual_gradient": "true", "lambda_semantic": "0.5"},
        "recipe": RECIPE,
    },
    "ale": {"method": "ale", "recipe": RECIPE},
    "dap": {"method": "dap"},
    "mgmrn": {
        "method": "mgmrn",
        "preset": "recommended",
        "settings": {"width": "32", "attention_width": "8", "grouping": "parts", "schedule": "progressive"},
        # not AdamW, which makes steps of the rounding error that is the gradient of the key's bias
        "recipe": RECIPE | {"batch_size": "6", "batches": "3", "optimizer": "sgd"},
    },
}
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import test_distributed
for job in json.loads(sys.argv[2]):
    test_distributed.do(job)
"""


def do(job):
    """One run; stopped by a signal to the last process at a step, if the job says so."""
    job = dict(job)
    stop = job.pop("stop", None)

    def progress(task, done, total, note=""):
        if (
            stop is not None
            and "final" in task
            and done == stop
            and distributed.position() == distributed.processes() - 1
        ):
            os.kill(os.getpid(), signal.SIGTERM)

    spec = BackboneSpec(**job.pop("backbone"))
    try:
        names = [job.pop(name) for name in ("method", "dataset", "folder")]
        unseen.fit(*names, backbone=spec, device="cpu", progress=progress, **job)
    except Interrupted:
        assert stop is not None


def together(jobs, count=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    script = Path(jobs[0]["folder"]).parent / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [*command, str(script), str(Path(__file__).parent), json.dumps(jobs)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def finished(tiny_guide, tmp_path_factory):
    """Every job done by one process and by two, with a cache each; and runs stopped by one, finished by the other."""
    root = tmp_path_factory.mktemp("runs")
    backbone = {"name": "test_resnet", "weights": "random", "image_size": 64, "options": {"output_stride": 16}}
    common = {"dataset": str(tiny_guide), "backbone": backbone, "precision": "64-true", "draws": 1}

    def jobs(kind):
        cache = str(root / f"cache-{kind}")
        return {
            name: {**common, **job, "cache": cache, "folder": str(root / kind / name)} for name, job in JOBS.items()
        }

    one, two = jobs("one"), jobs("two")
    for kind in ("one", "two"):
        (root / kind).mkdir()
    started_by_two = {**two["msdnpp"], "folder": str(root / "two" / "stopped")}
    started_by_one = {**one["msdnpp"], "folder": str(root / "one" / "stopped")}
    for job in one.values():
        do(job)
    do({**started_by_one, "stop": 3})
    assert not (root / "one" / "stopped" / "results.json").exists()
    shutil.copytree(root / "one" / "stopped", root / "two" / "continued")
    together(
        [*two.values(), {**started_by_two, "stop": 3}, {**started_by_two, "folder": str(root / "two" / "continued")}]
    )
    assert (root / "two" / "stopped" / "seed-0" / "final" / "checkpoint.safetensors").exists()
    assert not (root / "two" / "stopped" / "results.json").exists()
    shutil.copytree(root / "two" / "stopped", root / "one" / "continued")
    do({**started_by_one, "folder": str(root / "one" / "continued")})
    return root


def measured(folder):
    found = json.loads((folder / "results.json").read_text())["protocols"]
    return {
        (protocol, name): values[name]
        for protocol in found
        for values in found[protocol]["seeds"].values()
        for name in ("T1", "U", "S", "H", "AUSUC", "gamma")
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *((f"one/{name}", f"two/{name}") for name in JOBS),
        ("one/msdnpp", "one/continued"),
        ("one/msdnpp", "two/continued"),
    ],
)
def test_two_processes_end_with_the_weights_and_metrics_of_one(first, second, finished):
    one, two = finished / first, finished / second
    assert measured(two) == pytest.approx(measured(one), abs=1e-12)
    files = sorted(f.name for f in (one / "seed-0").glob("*.safetensors"))
    assert "honest.safetensors" in files
    assert files == sorted(f.name for f in (two / "seed-0").glob("*.safetensors"))
    for file in files:
        weights, others = load_file(one / "seed-0" / file), load_file(two / "seed-0" / file)
        assert set(weights) == set(others)
        for name, values in weights.items():
            np.testing.assert_allclose(others[name], values, rtol=0, atol=1e-12, err_msg=f"{file} {name}")
    for file in (one / "seed-0").glob("*-[TH]*.npz"):
        with np.load(file) as decisions, np.load(two / "seed-0" / file.name) as others:
            for name in decisions.files:
                np.testing.assert_allclose(others[name], decisions[name], atol=1e-9, err_msg=f"{file.name} {name}")


def test_two_processes_write_the_store_of_one(finished):
    stores = []
    for kind in ("one", "two"):
        (folder,) = [f for f in (finished / f"cache-{kind}" / "regions").iterdir() if f.is_dir()]
        stores.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert set(stores[0]) == {"store.json", "stage0.bin", "journal.jsonl"}
    assert stores[0] == stores[1]


def test_only_the_first_process_leaves_files(finished):
    one, two = finished / "one" / "msdn", finished / "two" / "msdn"
    relative = [
        {str(f.relative_to(folder)) for f in folder.rglob("*") if "tfevents" not in f.name} for folder in (one, two)
    ]
    assert relative[0] == relative[1]
    lines = [(folder / "seed-0" / "final" / "metrics.jsonl").read_text().splitlines() for folder in (one, two)]
    assert len(lines[0]) == len(lines[1])


@pytest.fixture
def processes(monkeypatch):
    def pretend(count, position):
        monkeypatch.setattr(distributed, "processes", lambda: count)
        monkeypatch.setattr(distributed, "position", lambda: position)

    return pretend


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000, 1001])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_image_is_evaluated_once(count, size, processes):
    seen = []
    for position in range(size):
        processes(size, position)
        mine, rows = own_batches(count)
        positions = [int(p) for batch in mine for p in batch]
        assert positions == list(rows)
        seen += positions
    assert seen == list(range(count))


def test_a_shared_batch_draws_and_exchanges_what_a_whole_one_does():
    whole = torch.arange(14.0).reshape(7, 2)
    torch.manual_seed(3)
    numbers, state = random_rows(whole), torch.get_rng_state()
    for rows in (range(4), range(4, 7), range(7, 7)):
        own = whole[rows.start : rows.stop]
        torch.manual_seed(3)
        with sharing(Share(rows, 7, lambda _: whole)):
            assert torch.equal(random_rows(own), numbers[rows.start : rows.stop])
            assert torch.equal(exchange(own, lambda t: t.roll(2, 0)), whole.roll(2, 0)[rows.start : rows.stop])
            assert batch_size(own) == 7
        assert torch.equal(torch.get_rng_state(), state)
    assert batch_size(whole) == 7


class Streamed:
    streams = True


def test_reading_ahead_keeps_order_and_raises_in_place():
    assert list(ahead(lambda k: k * k, range(5), Streamed())) == [0, 1, 4, 9, 16]
    found = ahead(lambda k: 1 // (2 - k), range(5), Streamed())
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_without_torchrun_nothing_is_shared(tmp_path):
    assert distributed.is_first()
    assert distributed.part(5) == range(5)
    assert distributed.own_folder(tmp_path) == tmp_path
    assert not distributed.any_of(False)
