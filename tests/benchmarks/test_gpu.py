"""The measurements for a GPU: everything of them that a CPU can do, and one line where there is no GPU."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
import torch

from benchmarks import gpu_determinism, gpu_training


@pytest.mark.slow
@pytest.mark.parametrize(("module", "more"), [(gpu_training, ["--seeds", "1"]), (gpu_determinism, [])])
def test_small(module, more, tmp_path, monkeypatch, capsys):
    output = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["x", "--small", "--epochs", "2", *more, "--output", str(output)])
    module.main()
    found = json.loads(output.read_text())
    if module is gpu_training:
        rows = found["tables"]["A whole training"]
        assert [row["training"] for row in rows] == [
            "literal loop, float32",
            *(f"{name}, one by one" for name in ("float32", "tf32", "bfloat16")),
        ]
        assert all(row["seconds"] > 0 for row in rows)
    else:
        assert len(found["tables"]["Two trainings with one seed"]) == 8
        assert all(row["weights"] == 0 for row in found["tables"]["Two trainings with one seed"])
        assert found["within"]


def test_the_literal_side_tests_as_the_method_does():
    data = gpu_training.MadeUp(gpu_training.SMALL, torch.device("cpu"), torch.float32)
    method = gpu_training.new_method(data, 0, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        regions = data.test.batch(range(5))
        z, parameters = data.classes.unit, dict(method.named_parameters())
        seen = data.classes.seen
        found = gpu_training.literal_inference(parameters, regions.transpose(1, 2), z, seen, method.settings)
        branches = method.eval()(regions)
    torch.testing.assert_close(found, method.class_scores(branches, data.classes), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["gpu", "gpu_training", "gpu_determinism"])
def test_without_a_gpu_it_is_one_line(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{name}").main()
    assert end.value.code == 2
    assert capsys.readouterr().out == "needs a CUDA device; --small tries everything on the CPU\n"
