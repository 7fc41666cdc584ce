"""Where golden numbers and real photographs are looked for; neither is part of the repository."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARITY = Path(os.environ.get("UNSEEN_PARITY", ROOT.parent / "shared" / "parity"))
DATA = Path(os.environ.get("UNSEEN_DATA", ROOT.parent / "shared" / "data"))
