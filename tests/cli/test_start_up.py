"""What a command does not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from unseen.errors import UnseenError
from unseen.ground import devices
from unseen.ground.compiler import uncompiled

SLOW = (
    "pandas",
    "torch._dynamo",
    "sympy",
    "lightning_fabric",
    "torchmetrics",
    "transformers",
    "scipy.stats",
    "matplotlib",
    "sklearn",
)


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_predicting_imports_no_compiler_no_trainer_and_no_plots():
    code = "import sys, unseen.recognizer, unseen.recognizer.stream, unseen.explain.figures, unseen.cli.predicting\n"
    code += f"print([m for m in {SLOW} if m in sys.modules])"
    assert in_a_new_process(code).strip() == "[]"


def test_training_imports_lightning_with_its_first_step_and_no_compiler_and_no_metrics():
    code = """
import sys, torch
from unseen.methods.settings import Recipe
from unseen.training import run, fabric
made = fabric.make_fabric("cpu")
made.autocast()
print("lightning_fabric" in sys.modules, made.device)
for name in ("rmsprop", "sgd", "adamw"):
    model = torch.nn.Linear(2, 1)
    model, optimizer = made.setup(model, Recipe(optimizer=name).make_optimizer(model.parameters()))
    made.backward(model(torch.ones(3, 2)).sum())
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
heavy = ("lightning_fabric", "torchmetrics", "transformers", "sklearn", "torch._dynamo", "sympy")
print([m for m in heavy if m in sys.modules])
"""
    assert in_a_new_process(code).splitlines() == ["False cpu", "['lightning_fabric']"]


@pytest.mark.parametrize("kind", [torch.optim.RMSprop, torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_without_the_compilers_marks_makes_the_same_steps(kind):
    ends, states = [], []
    for made in (kind, uncompiled(kind)):
        weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).sin())
        optimizer = made(
            [weight], lr=0.1, weight_decay=0.01, **({} if kind is torch.optim.AdamW else {"momentum": 0.9})
        )
        for step in range(4):
            (weight * torch.arange(6.0).reshape(2, 3).cos()).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == 1:
                kept, other = optimizer.state_dict(), made([weight], lr=1.0)
                other.load_state_dict(kept)
                optimizer = other
        assert isinstance(optimizer, kind)
        assert weight.grad is None
        ends.append(weight.detach())
        states.append(optimizer.state_dict())
    assert torch.equal(*ends)
    assert str(states[0]) == str(states[1])


def test_help_imports_no_torch():
    code = "import sys, unseen.cli\nprint('torch' in sys.modules)"
    assert in_a_new_process(code).strip() == "False"


def test_import_takes_no_time_and_no_torch():
    code = "import sys, time\nbegan = time.process_time()\nimport unseen\n"
    code += "print(time.process_time() - began, 'torch' in sys.modules)"
    seconds, torch_is_there = in_a_new_process(code).split()
    assert torch_is_there == "False"
    assert float(seconds) < 0.3


CHANGES = """
list RUN
show RUN wren
add RUN kiwi --like wren --set size=3
add RUN --attributes TABLE
edit RUN kiwi --set size=2
rename RUN kiwi moa
remove RUN moa
reset RUN
"""


def test_changing_classes_imports_no_torch(tmp_path):
    (tmp_path / "classes.csv").write_text("class,seen,size,colour\nwren,1,1,0\ntit,1,2,5\nowl,0,9,3\n")
    (tmp_path / "attributes.csv").write_text("attribute\nsize\ncolour\n")
    (tmp_path / "new.csv").write_text("class,size,colour\nemu,8,1\nrhea,7,2\n")
    calls = CHANGES.replace("RUN", str(tmp_path)).replace("TABLE", str(tmp_path / "new.csv")).strip().splitlines()
    code = f"""
import sys
from unseen import cli
for call in {calls}:
    sys.argv = ["unseen", "classes", *call.split()]
    try:
        cli.main()
    except SystemExit as left:
        assert not left.code, call
print(sorted({{"torch", "timm", "scipy"}} & set(sys.modules)))
"""
    assert in_a_new_process(code).strip().splitlines()[-1] == "[]"


def test_the_compiler_is_there_when_it_is_asked_for():
    """The canary of unseen.ground.compiler: it fails where timm, torchvision or torch ask for something else."""
    code = """
import sys, types
import torch, unseen.backbones.vision
from unseen.training.fabric import make_fabric
trainer = make_fabric("cpu")
assert trainer.strategy
assert "torch._dynamo" not in sys.modules and not isinstance(vars(torch).get("_dynamo"), types.ModuleType)
from torchvision.ops import roi_align
assert roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 2).eq(1).all()
from timm.models import naflexvit
kept = naflexvit.NaFlexRopeIterator
import unseen.ground.compiler as stand_in
import torch._dynamo, torch._dynamo.utils
# what the stand-ins give, the real compiler gives in the same form
assert torch._dynamo.disable(recursive=True)(lambda x: x)._torchdynamo_disable
assert stand_in.disable(recursive=True)(lambda x: x)._torchdynamo_disable
assert stand_in.is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
counted = torch.compile(lambda x: x * 2 + 1, backend="eager")
model = trainer.setup(torch.compile(torch.nn.Linear(2, 1), backend="eager"))
assert type(model.module) is torch.nn.Linear and model(torch.ones(3, 2)).shape == (3, 1)  # known as compiled
print(counted(torch.ones(2)).tolist(), hasattr(torch._dynamo, "eval_frame"))
"""
    assert in_a_new_process(code).strip() == "[3.0, 3.0] True"


@pytest.mark.parametrize("name", ["cuda:x", "tpu:", "gpu", "cuda:99", "meta", "nonsense"])
def test_a_device_that_is_not_there_is_one_line(name):
    with pytest.raises(UnseenError, match="device") as caught:
        devices.find_device(name)
    assert "\n" not in str(caught.value)


def test_devices_that_are_there():
    assert devices.find_device("cpu") == torch.device("cpu")
    assert devices.find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert devices.split_device("cuda:1") == ("cuda", 1)
