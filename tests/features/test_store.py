"""The region store holds the network's values, outlives a kill, and is never taken for another."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.errors import DataError, StoreError
from unseen.features import extract as extraction
from unseen.features import hashes as hashing
from unseen.features import layout
from unseen.features import store as features
from unseen.features.extract import extract
from unseen.features.source import RegionSource
from unseen.features.store import RegionStore
from unseen.ground import memory
from unseen.ground.files import read_json, write_json
from unseen.ground.journal import journal_line
from unseen.methods.pooled import pool

SPEC = BackboneSpec("test_resnet", stages=("final", 2), image_size=64, weights="random")
COUNT, BATCH = 26, 4  # the last of 7 chunks is not full


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small only suffer from threads, and the tests from each other's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(SPEC)


@pytest.fixture(scope="module")
def shared_images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        height, width = rng.integers(40, 90, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def finished(shared_images, backbone, tmp_path_factory) -> RegionStore:
    return run(shared_images, backbone, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def images(shared_images, tmp_path) -> Path:
    """Images that may be changed."""
    return Path(shutil.copytree(shared_images, tmp_path / "images"))


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A finished store that may be damaged."""
    return Path(shutil.copytree(finished.folder, tmp_path / "store"))


def run(images: Path, backbone: Backbone, cache: Path, **kwargs) -> RegionStore:
    files = sorted(images.iterdir())
    return extract(files, backbone, cache, **{"names": [f.name for f in files], "batch_size": BATCH, **kwargs})


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


class Forwards:
    """Counts images that went through the network."""

    def __init__(self, backbone: Backbone) -> None:
        self.images = 0
        self.handle = backbone.register_forward_pre_hook(self.count)

    def count(self, module: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        self.images += len(args[0])

    def __enter__(self) -> Forwards:
        return self

    def __exit__(self, *args: object) -> None:
        self.handle.remove()


class TestContent:
    def test_values_are_the_networks(self, finished, shared_images, backbone):
        files = sorted(shared_images.iterdir())
        for start in range(0, COUNT, BATCH):
            with torch.inference_mode():
                expected = backbone(torch.stack([backbone.transform(f) for f in files[start : start + BATCH]]))
            for stage in (0, 1):
                rows = range(start, min(start + BATCH, COUNT))
                assert torch.equal(finished.read(rows, stage), expected[stage].half())

    def test_describes_itself(self, finished):
        assert len(finished) == COUNT
        assert finished.names[3] == "03.png"
        assert finished.stages == ("final", 2)
        assert [finished.grid(i) for i in (0, 1)] == [(2, 2), (8, 8)]
        assert [finished.channels(i) for i in (0, 1)] == [96, 48]
        assert finished.dtype == torch.float16
        assert (
            finished.nbytes == COUNT * (4 * 96 + 64 * 48) * 2 == sum(f.stat().st_size for f in finished._layout.files)
        )
        assert BackboneSpec.from_json(finished.backbone) == SPEC.resolved()
        assert finished.folder.name == finished.fingerprint[:16]
        finished.verify()

    def test_reads_any_order_and_kind_of_indices(self, finished):
        everything = finished.read(range(COUNT))
        order = [7, 0, 25, 7, 3]
        for indices in (order, np.array(order), torch.tensor(order)):
            assert torch.equal(finished.read(indices), everything[order])
        assert finished.read([]).shape == (0, 4, 96)
        for wrong in ([-1], [COUNT]):
            with pytest.raises(IndexError):
                finished.read(wrong)

    def test_pickles_by_its_folder(self, finished):
        data = pickle.dumps(finished)
        assert len(data) < 1000
        assert torch.equal(pickle.loads(data).read([5]), finished.read([5]))

    @pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
    def test_other_dtypes(self, shared_images, backbone, tmp_path, dtype):
        store = run(shared_images, backbone, tmp_path, dtype=dtype)
        with torch.inference_mode():
            files = sorted(shared_images.iterdir())[:BATCH]
            expected = backbone(torch.stack([backbone.transform(f) for f in files]))[0]
        assert store.dtype == getattr(torch, dtype)
        assert torch.equal(store.read(range(BATCH)), expected.to(store.dtype))

    def test_workers_give_the_same_bytes(self, finished, shared_images, backbone, tmp_path):
        store = run(shared_images, backbone, tmp_path, workers=2)
        assert contents(store.folder) == contents(finished.folder)

    def test_progress_and_plan(self, shared_images, backbone, tmp_path):
        plans, steps = [], []
        store = run(shared_images, backbone, tmp_path, tick=lambda *s: steps.append(s), on_plan=plans.append)
        assert steps == [(min(i, COUNT), COUNT) for i in range(4, 29, 4)]
        run(shared_images, backbone, tmp_path, on_plan=plans.append)
        assert [(p.folder, p.images, p.todo, p.nbytes, p.needed) for p in plans] == [
            (store.folder, COUNT, COUNT, store.nbytes, store.nbytes),
            (store.folder, COUNT, 0, store.nbytes, 0),
        ]

    def test_the_plan_says_how_much_and_how_long(self, shared_images, backbone, tmp_path, monkeypatch):
        plans, clock = [], iter([0, 2, 2, 9, 10])  # 4 images read in 2 s, 4 through the network in 1 s
        monkeypatch.setattr(extraction.time, "monotonic", lambda: next(clock))
        run(shared_images, backbone, tmp_path, batch_size=3, on_plan=plans.append)
        assert plans[0].seconds == pytest.approx(COUNT * (2 / 4 + 1 / 4))
        assert replace(plans[0], needed=3 * 10**10, free=54 * 10**9, todo=37_322, seconds=7800.0).__str__() == (
            "37,322 images, 30.0 GB to write, 54.0 GB free, about 2 h 10 min"
        )

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0, "less than a minute"), (29, "less than a minute"), (31, "about 1 min"), (3599, "about 1 h 0 min")],
    )
    def test_durations(self, seconds, said):
        assert extraction.duration(seconds) == said

    def test_journals_of_several_processes_are_one_in_the_end(self, finished, shared_images, backbone, tmp_path):
        folder = shutil.copytree(finished.folder, tmp_path / finished.folder.name)
        lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:2]))
        (folder / "journal.jsonl.1").write_bytes(b"".join([*lines[4:6], b'{"chunk": 6, "crc']))
        with pytest.raises(StoreError, match="unfinished: 16 of 26 images"):
            RegionStore.open(folder)
        with Forwards(backbone) as forwards:
            run(shared_images, backbone, tmp_path)
        assert forwards.images == COUNT - 16
        assert contents(folder) == contents(finished.folder)


class TestMistakes:
    def test_arguments(self, backbone, tmp_path):
        with pytest.raises(DataError, match="no images"):
            extract([], backbone, tmp_path, names=[])
        with pytest.raises(StoreError, match='unknown type "int8" — use one of float16, bfloat16, float32'):
            extract([Path("a")], backbone, tmp_path, names=["a"], dtype="int8")
        with pytest.raises(ValueError, match="1 name for 2 files"):
            extract([Path("a"), Path("b")], backbone, tmp_path, names=["a"])
        with pytest.raises(DataError, match=r"nowhere/a\.jpg: cannot be read: No such file"):
            extract([Path("nowhere/a.jpg")], backbone, tmp_path, names=["a"])

    @pytest.mark.parametrize("workers", [0, 1])
    def test_broken_image_is_named_and_the_rest_kept(self, images, backbone, tmp_path, workers):
        good = (images / "13.png").read_bytes()
        (images / "13.png").write_bytes(good[:200])
        with pytest.raises(DataError, match=r"13\.png: broken image") as caught:
            run(images, backbone, tmp_path / "cache", workers=workers)
        assert "\n" not in str(caught.value)
        with Forwards(backbone) as forwards, pytest.raises(DataError, match=r"13\.png"):
            run(images, backbone, tmp_path / "cache")
        assert forwards.images == 0  # the chunks before it are there

    def test_values_beyond_half_precision(self, shared_images, tmp_path):
        backbone = Backbone(SPEC)
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.data.fill_(1000)
        with pytest.raises(
            StoreError, match=r"00.png: feature values up to .* overflow float16 — pass --store-dtype bf"
        ):
            run(shared_images, backbone, tmp_path)

    def test_too_little_room_before_the_start(self, shared_images, backbone, tmp_path, monkeypatch):
        monkeypatch.setattr(features.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(10**5))
        with (
            Forwards(backbone) as forwards,
            pytest.raises(StoreError, match=r"has 0\.1 MB free and 0\.2 MB more are needed"),
        ):
            run(shared_images, backbone, tmp_path)
        assert forwards.images == 0

    def test_disk_filled_on_the_way(self, finished, shared_images, backbone, tmp_path, monkeypatch):
        real, left = os.fsync, [9]

        def fsync(handle: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(handle)

        plans = []
        monkeypatch.setattr(layout.os, "fsync", fsync)
        with pytest.raises(StoreError, match="finished work is kept"):
            run(shared_images, backbone, tmp_path)
        monkeypatch.undo()
        store = run(shared_images, backbone, tmp_path, on_plan=plans.append)
        assert 0 < plans[0].todo < COUNT
        assert contents(store.folder) == contents(finished.folder)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from unseen.backbones.backbone import Backbone, BackboneSpec
from unseen.features.extract import extract

def tick(done, total):
    if done >= 12:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
spec = BackboneSpec("test_resnet", stages=("final", 2), image_size=64, weights="random")
files = sorted(Path(sys.argv[1]).iterdir())
names = [f.name for f in files]
extract(files, Backbone(spec), Path(sys.argv[2]), names=names, batch_size=4, tick=tick)
"""


class TestResume:
    def test_after_kill(self, finished, shared_images, backbone, tmp_path):
        command = [sys.executable, "-c", KILLED, str(shared_images), str(tmp_path)]
        path = os.pathsep.join([str(Path(features.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        assert subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode == -signal.SIGKILL
        folder = tmp_path / finished.folder.name
        with pytest.raises(StoreError, match=r"unfinished: 12 of 26 images — repeat the extraction to resume"):
            RegionStore.open(folder)
        with Forwards(backbone) as forwards:
            store = run(shared_images, backbone, tmp_path)
        assert forwards.images == COUNT - 12
        assert store.folder == folder
        assert contents(folder) == contents(finished.folder)
        with Forwards(backbone) as forwards:
            run(shared_images, backbone, tmp_path)
        assert forwards.images == 0

    @pytest.mark.parametrize(
        "torn", [b'{"chunk": 3, "crc', b"\0\0\0\0", b"\xff{", b"3\n", journal_line({"chunk": 99, "crc32": [1, 2]})]
    )
    def test_torn_journal_and_half_written_chunk(self, finished, shared_images, backbone, tmp_path, torn):
        folder = shutil.copytree(finished.folder, tmp_path / finished.folder.name)
        journal = folder / "journal.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[:3]) + torn)
        with (folder / "stage0.bin").open("r+b") as file:
            file.seek(12 * 4 * 96 * 2)
            file.write(b"half a chunk")
        with Forwards(backbone) as forwards:
            run(shared_images, backbone, tmp_path).verify()
        assert forwards.images == COUNT - 12
        again = contents(folder)
        assert again.pop("journal.jsonl").splitlines()[-4:] == [line.strip() for line in lines[3:]]
        assert again == {k: v for k, v in contents(finished.folder).items() if k != "journal.jsonl"}

    def test_smaller_batches_go_on_with_the_chunks(self, finished, shared_images, backbone, tmp_path):
        folder = shutil.copytree(finished.folder, tmp_path / finished.folder.name)
        lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:5]))
        with Forwards(backbone) as forwards:
            store = run(shared_images, backbone, tmp_path, batch_size=3)
        assert forwards.images == 6
        store.verify()
        assert torch.allclose(store.read(range(20, 26)), finished.read(range(20, 26)), rtol=1e-2, atol=1e-3)

    def test_store_of_wrong_size_is_made_anew(self, finished, shared_images, backbone, tmp_path):
        folder = shutil.copytree(finished.folder, tmp_path / finished.folder.name)
        os.truncate(folder / "stage1.bin", 1000)
        run(shared_images, backbone, tmp_path)
        assert contents(folder) == contents(finished.folder)

    def test_second_process_waits_for_the_first(self, finished, shared_images, backbone, tmp_path, caplog):
        lock = filelock.FileLock(tmp_path / f".{finished.folder.name}.lock", thread_local=False)
        lock.acquire()
        stores = []
        thread = threading.Thread(target=lambda: stores.append(run(shared_images, backbone, tmp_path)))
        thread.start()
        deadline = time.monotonic() + 10
        while "another process" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "waiting for another process" in caplog.text
        assert not (tmp_path / finished.folder.name).exists()
        lock.release()
        thread.join()
        assert contents(stores[0].folder) == contents(finished.folder)

    def test_two_at_once_share_the_work(self, finished, shared_images, tmp_path):
        steps = []
        threads = [
            threading.Thread(
                target=run,
                args=(shared_images, Backbone(SPEC), tmp_path),
                kwargs={"tick": lambda *step: steps.append(step)},
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(steps) == 7
        assert contents(tmp_path / finished.folder.name) == contents(finished.folder)


STREAM = """
import sys
import numpy as np
import psutil
from unseen.features.source import RegionSource
from unseen.features.store import RegionStore
source = RegionSource(RegionStore.open(sys.argv[1]), np.arange(60_000), stage=1, budget_bytes=0)
source.batch(np.arange(500))
before = psutil.Process().memory_info().rss
for start in range(0, 60_000, 500):
    assert not source.batch(np.arange(start, start + 500)).any()
print((psutil.Process().memory_info().rss - before) >> 20)
"""


def test_memory_does_not_grow_with_what_was_read(copy):
    count = 60_000
    meta = read_json(copy / "store.json")
    write_json(copy / "store.json", {**meta, "names": [str(i) for i in range(count)]})
    for file, size in (("stage0.bin", 4 * 96 * 2), ("stage1.bin", 64 * 48 * 2)):
        (copy / file).write_bytes(b"")
        os.truncate(copy / file, size * count)  # 369 MB of zeros that take no room
    chunks, sums = range(count // BATCH), [zlib.crc32(bytes(size * BATCH)) for size in (4 * 96 * 2, 64 * 48 * 2)]
    (copy / "journal.jsonl").write_bytes(b"".join(journal_line({"chunk": c, "crc32": sums}) for c in chunks))
    done = subprocess.run([sys.executable, "-c", STREAM, copy], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40


def test_memory_that_a_control_group_leaves(tmp_path):
    own = tmp_path / "cgroup"
    for folder, limit, used, cached in (("", "max", 10**12, 0), ("job", 5000, 3000, 500), ("job/step", "max", 2000, 0)):
        group = tmp_path / "fs" / folder
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon {used - cached}\nfile {cached}\n")
    own.write_text("0::/job/step\n")
    assert memory.allowed_memory(tmp_path / "fs", own) == 2500
    own.write_text("0::/\n")
    assert memory.allowed_memory(tmp_path / "fs", own) == float("inf")
    own.write_text("4:memory:/job\n")
    assert memory.allowed_memory(tmp_path / "fs", own) == float("inf")


@pytest.mark.parametrize(
    ("asked", "device", "chosen"), [(3, "cuda", 3), (0, "cuda", 0), (-1, "cpu", 0), (-1, "cuda", 5)]
)
def test_how_many_processes_read(asked, device, chosen, monkeypatch):
    monkeypatch.setattr(extraction.os, "sched_getaffinity", lambda _: set(range(11)), raising=False)
    monkeypatch.setattr(extraction, "local_processes", lambda: 2)
    assert extraction.chosen_workers(asked, torch.device(device)) == chosen


def test_a_store_is_read_where_the_system_has_no_preadv(finished, monkeypatch):
    expected = [finished.read([7, 0, 7, 3], stage) for stage in range(2)]
    monkeypatch.delattr(os, "preadv", raising=False)
    again = RegionStore.open(finished.folder)
    assert all(torch.equal(again.read([7, 0, 7, 3], stage), expected[stage]) for stage in range(2))


class TestStale:
    def folder(self, images: Path, backbone: Backbone, cache: Path, **kwargs) -> Path:
        return run(images, backbone, cache, **kwargs).folder

    def test_image_changed(self, images, backbone, tmp_path):
        first = self.folder(images, backbone, tmp_path)
        before = (images / "05.png").stat()
        data = bytearray((images / "05.png").read_bytes())
        shutil.copy(images / "06.png", images / "05.png")
        second = self.folder(images, backbone, tmp_path)
        (images / "05.png").write_bytes(data)
        os.utime(images / "05.png", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert second != first
        assert self.folder(images, backbone, tmp_path) == first

    def test_names_and_order(self, shared_images, backbone, finished):
        files = sorted(shared_images.iterdir())
        names = [f.name for f in files]
        cache = finished.folder.parent
        for changed, called in ((files, ["x", *names[1:]]), (files[::-1], names[::-1]), (files[:-1], names[:-1])):
            store = extract(changed, backbone, cache, names=called, batch_size=BATCH)
            assert store.folder != finished.folder
            assert store.names == called

    def test_backbone_and_dtype(self, shared_images, finished, tmp_path):
        cache = finished.folder.parent
        weights = tmp_path / "a.safetensors"
        folders = {finished.folder}
        specs = [
            BackboneSpec("test_resnet", stages=("final", 2), image_size=64, weights="random", seed=1),
            BackboneSpec("test_resnet", stages=(2, "final"), image_size=64, weights="random"),
            BackboneSpec("test_resnet", stages=("final", 2), image_size=32, weights="random"),
            BackboneSpec("test_resnet", stages=("final", 2), image_size=64, weights="random", crop=0.9),
        ]
        folders |= {self.folder(shared_images, Backbone(spec), cache) for spec in specs}
        for factor in (1.0, 1.5):
            save_file({k: v * factor for k, v in Backbone(SPEC).model.state_dict().items()}, weights)
            spec = BackboneSpec("test_resnet", stages=("final", 2), image_size=64, weights=str(weights))
            folders.add(self.folder(shared_images, Backbone(spec), cache))
        assert len(folders) == 7

    def test_hashes_are_remembered_but_not_believed(self, images, tmp_path, monkeypatch):
        files, cache = sorted(images.iterdir()), tmp_path / "hashes.json"
        digests = []
        real = hashing.hashlib.file_digest
        monkeypatch.setattr(hashing.hashlib, "file_digest", lambda f, a: digests.append(f.name) or real(f, a))
        first = hashing.content_hashes(files, cache)
        assert not cache.exists()  # the files are too fresh
        now = time.time_ns() + 10**10
        monkeypatch.setattr(hashing.time, "time_ns", lambda: now)
        assert hashing.content_hashes(files, cache) == first
        assert len(digests) == 2 * COUNT
        assert hashing.content_hashes(files, cache) == first
        assert len(digests) == 2 * COUNT
        stat = files[0].stat()
        data = bytearray(files[0].read_bytes())
        data[-1] ^= 1
        time.sleep(0.02)
        files[0].write_bytes(data)  # the same size, and made to look as old as before
        os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
        second = hashing.content_hashes(files, cache)
        assert [a == b for a, b in zip(first, second, strict=True)] == [False] + [True] * (COUNT - 1)
        cache.write_text("{torn")
        assert hashing.content_hashes(files, cache) == second


class TestDamage:
    def test_flipped_bit(self, copy):
        path = copy / "stage1.bin"
        data = bytearray(path.read_bytes())
        data[64 * 48 * 2 * 9 + 5] ^= 4
        path.write_bytes(data)
        store = RegionStore.open(copy)
        says = r"stage1.bin: damaged: chunk 2 \(images 8 to 11\) has a wrong checksum — unseen stores"
        with pytest.raises(StoreError, match=says):
            store.verify()
        with pytest.raises(StoreError, match=says):
            store.read([3, 9], stage=1)
        assert store.read([3, 12], stage=1).shape[0] == store.read([9], stage=0).shape[0] + 1

    @pytest.mark.parametrize("damage", ["bit", "short", "gone"])
    def test_hinted_does_only_what_is_damaged_again(self, finished, shared_images, backbone, tmp_path, damage):
        store = shutil.copytree(finished.folder, tmp_path / finished.folder.name)
        path = store / "stage1.bin"
        data = bytearray(path.read_bytes())
        data[64 * 48 * 2 * 9 + 5] ^= 4
        kept = {"bit": len(data), "short": len(data) - 10, "gone": 0}[damage]
        path.write_bytes(data[:kept])
        assert features.find_stores(tmp_path) == features.find_stores(store) == [store]
        before = features.inspect(store)
        assert not before.whole
        after = features.inspect(store, fix=True)
        lost = {"bit": range(8, 12), "short": [*range(8, 12), 24, 25], "gone": range(COUNT)}[damage]
        assert after.damaged == tuple(lost)
        done = []
        files = sorted(shared_images.iterdir())
        names = [file.name for file in files]
        extract(files, backbone, tmp_path, names=names, batch_size=BATCH, on_plan=lambda plan: done.append(plan.todo))
        assert done == [len(lost)]
        assert features.inspect(store).whole
        assert path.read_bytes() == (finished.folder / "stage1.bin").read_bytes()

    @pytest.mark.parametrize("size", [0, 10_000, 10**6])
    def test_wrong_size(self, copy, size):
        os.truncate(copy / "stage0.bin", size)
        with pytest.raises(StoreError, match=rf"stage0.bin: {size} bytes instead of 19968 — extract again"):
            RegionStore.open(copy)

    @pytest.mark.parametrize("name", ["stage0.bin", "store.json", "journal.jsonl"])
    def test_missing_file(self, copy, name):
        (copy / name).unlink()
        with pytest.raises(StoreError, match="extract"):
            RegionStore.open(copy)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "names": []}'])
    def test_damaged_description(self, copy, text):
        (copy / "store.json").write_text(text)
        with pytest.raises(StoreError, match="extract the features again") as caught:
            RegionStore.open(copy)
        assert "\n" not in str(caught.value)

    def test_no_store(self, tmp_path):
        with pytest.raises(StoreError, match="no such file"):
            RegionStore.open(tmp_path / "nothing")


def unit(regions: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(regions, dim=-1)


def pooled(regions: torch.Tensor) -> torch.Tensor:
    return regions.mean(1, keepdim=True)


class TestSource:
    indices = (20, 3, 4, 25, 0, 11)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("prepare", [None, unit, pooled])
    @pytest.mark.parametrize("stage", [0, 1])
    def test_resident_and_streaming_agree(self, finished, prepare, dtype, stage):
        options = {"stage": stage, "prepare": prepare, "dtype": dtype}
        kept = RegionSource(finished, self.indices, **options)
        streamed = RegionSource(finished, self.indices, **options, budget_bytes=0)
        assert (kept.resident, streamed.resident) == (True, False)
        expected = finished.read(self.indices, stage).to(dtype)
        expected = expected if prepare is None else prepare(expected)
        assert kept.shape == streamed.shape == expected.shape[1:]
        assert kept.nbytes == streamed.nbytes == expected.nbytes
        assert len(kept) == 6
        for positions in ([5, 0, 0, 2], torch.tensor([1]), np.array([4, 3]), range(6)):
            for source in (kept, streamed):
                batch = source.batch(positions)
                assert batch.dtype == dtype
                assert torch.equal(batch, expected[np.asarray(positions)])

    def test_budget_is_of_what_is_prepared(self, finished):
        whole, small = 6 * 4 * 96 * 4, 6 * 96 * 4
        for prepare, nbytes in ((unit, whole), (pooled, small)):
            assert RegionSource(finished, self.indices, prepare=prepare, budget_bytes=nbytes).resident
            assert not RegionSource(finished, self.indices, prepare=prepare, budget_bytes=nbytes - 1).resident

    def test_default_budget_is_half_of_thefree_memory(self, finished, monkeypatch):
        free = namedtuple("Memory", "available")
        for available, resident in ((2 * 6 * 4 * 96 * 4, True), (2 * 6 * 4 * 96 * 4 - 2, False)):
            monkeypatch.setattr(memory.psutil, "virtual_memory", lambda a=available: free(a))
            assert RegionSource(finished, self.indices).resident is resident

    def test_no_gradients(self, finished):
        weight = torch.nn.Parameter(torch.ones(()))
        assert not RegionSource(finished, [0], prepare=lambda r: r * weight).batch([0]).requires_grad

    def test_pooled_images_are_read_once_for_all_sources(self, finished, monkeypatch):
        read, plain = [], RegionSource._compute

        def compute(self, indices):
            read.extend(indices.tolist())
            return plain(self, indices)

        monkeypatch.setattr(RegionSource, "_compute", compute)
        first, second = (RegionSource(finished, at, prepare=pool) for at in ([0, 2], [2, 1, 0]))
        assert sorted(read) == [0, 0, 1, 2, 2]  # the first image of a source tells its shape
        torch.testing.assert_close(second.batch([2, 0]), first.batch([0, 1]), rtol=0, atol=0)
        torch.testing.assert_close(second.batch([1]), pool(finished.read([1]).float()), rtol=0, atol=0)

    @pytest.mark.parametrize("modes", [(True, False), (False, True)])
    def test_pooled_images_are_shared_in_and_out_of_inference_mode(self, finished, modes):
        found = []
        for mode, at in zip(modes, ([0, 2], [1, 2]), strict=True):
            with torch.inference_mode(mode):
                found.append(RegionSource(finished, at, prepare=pool).batch([0, 1]))
        torch.testing.assert_close(found[1][1], found[0][1], rtol=0, atol=0)
        torch.testing.assert_close(found[1][:1], pool(finished.read([1]).float()), rtol=0, atol=0)

    def test_many_images_in_residence(self, finished):
        indices = list(range(COUNT)) * 6
        source = RegionSource(finished, indices)
        assert torch.equal(source.batch(range(len(indices))), finished.read(indices).float())

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_on_a_gpu(self, finished):
        for budget in (None, 0):
            source = RegionSource(finished, self.indices, device="cuda", budget_bytes=budget)
            assert source.resident is (budget is None)
            assert source.batch([1, 0]).device.type == "cuda"
            assert torch.equal(source.batch([1, 0]).cpu(), finished.read([3, 20]).float())

    def test_streaming_holds_a_batch_and_no_more(self, finished, tmp_path):
        store = sparse_copy(finished.folder, tmp_path / "large", 33_000)
        assert store.nbytes > 200e6
        source = RegionSource(store, range(len(store)), stage=1, budget_bytes=10**6)
        assert not source.resident

        def held() -> int:
            memory = psutil.Process().memory_info()
            return memory.rss - memory.shared  # without the page cache

        source.batch(range(64))
        before, most = held(), 0
        for start in range(0, len(store), 64):
            source.batch(range(start, min(start + 64, len(store))))
            most = max(most, held() - before)
        assert most < 20e6  # a batch of 64 is 0.8 MB


def sparse_copy(folder: Path, target: Path, count: int) -> RegionStore:
    """A finished store of `count` images of nothing, which takes no room on the disk."""
    target.mkdir()
    meta = read_json(folder / "store.json") | {"names": ["x"] * count, "chunk": count}
    write_json(target / "store.json", meta)
    sums = [zlib.crc32(bytes(size * count)) for size in (4 * 96 * 2, 64 * 48 * 2)]
    (target / "journal.jsonl").write_bytes(journal_line({"chunk": 0, "crc32": sums}))
    for name, per_image in (("stage0.bin", 4 * 96 * 2), ("stage1.bin", 64 * 48 * 2)):
        (target / name).touch()
        os.truncate(target / name, per_image * count)
    return RegionStore.open(target)


@pytest.mark.real_data
def test_birds(real_data, tmp_path):
    spec = BackboneSpec(
        "mobilenetv2_100",
        weights=str(real_data / "weights" / "mobilenetv2_100_imagenet.safetensors"),
        options={"pad_type": "same"},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    folder = real_data / "cub50" / "images"
    files = sorted(folder.glob("*/*.jpg"))[::300][:8]
    backbone = Backbone(spec)
    store = extract(files, backbone, tmp_path, names=[str(f.relative_to(folder)) for f in files])
    store.verify()
    regions = store.read(range(8))
    assert regions.shape == (8, 49, 1280)
    assert store.grid() == (7, 7)
    with torch.inference_mode():
        pixels = torch.stack([backbone.transform(f) for f in files]).contiguous(memory_format=torch.channels_last)
        expected = backbone.model.forward_features(pixels)
    expected = expected.flatten(2).transpose(1, 2).half()  # computed in one batch, which may round otherwise
    assert torch.allclose(regions, expected, rtol=2e-3, atol=2e-3)
