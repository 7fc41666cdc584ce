"""Every module of benchmarks/ is reached by `python -m benchmarks`, and every one that is listed exists."""

from __future__ import annotations

import pytest
from benchmarks.__main__ import GPU, SHARED, SUITE, Made
from benchmarks.measured import ROOT

from benchmarks import gpu

MODULES = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}


def test_every_module_is_in_a_suite_and_every_listed_one_exists():
    assert MODULES - {"__init__", "__main__"} == {*SUITE, *gpu.SUITE, GPU, *SHARED}


@pytest.mark.parametrize("name", sorted({*SUITE, *gpu.SUITE, GPU}))
def test_it_takes_an_output_and_is_a_program(name):
    text = (ROOT / "benchmarks" / f"{name}.py").read_text()
    assert '"--output"' in text
    assert 'if __name__ == "__main__":\n    main()\n' in text


def test_what_it_is_given_can_be_made(tmp_path):
    asked = {argument[1:-1] for arguments in SUITE.values() for argument in arguments if argument.startswith("{")}
    assert asked <= {name for name in dir(Made) if not name.startswith("_")} | {"scratch"}
    assert Made(tmp_path).filled("{scratch}") == str(tmp_path)
    assert Made(tmp_path).filled("--count") == "--count"
