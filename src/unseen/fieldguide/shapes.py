"""Outlines of a bird facing right: points "across up" of the curves that `drawing` bends into a pose."""

import numpy as np


def _curve(points: str) -> np.ndarray:
    return np.array(points.split(), dtype=np.float64).reshape(-1, 2)


# fmt: off
# From the tail's root, pointing away from the bird.
TAIL = {
    "square": _curve("-0.05 0.06  0.3 0.085  0.5 0.1  0.5 -0.1  0.3 -0.085  -0.05 -0.06"),
    "rounded": _curve("-0.05 0.06  0.24 0.16  0.4 0.19  0.5 0.1  0.53 0  0.5 -0.1  0.4 -0.19  0.24 -0.16  -0.05 -0.06"),
    "forked": _curve("-0.05 0.06  0.25 0.09  0.66 0.24  0.5 0.1  0.3 0  0.5 -0.1  0.66 -0.24  0.25 -0.09  -0.05 -0.06"),
    "pointed": _curve("-0.05 0.06  0.2 0.075  0.45 0.045  0.74 0  0.45 -0.045  0.2 -0.075  -0.05 -0.06"),
}

# Upper edge from root to tip, lower edge back from tip to root.
BILL = {
    "conical": (_curve("0 0.13  0.12 0.085  0.24 -0.015"),
        _curve("0.24 -0.015  0.12 -0.09  0 -0.12")),
    "needle": (_curve("0 0.05  0.22 0.025  0.46 0.012"),
        _curve("0.46 0.004  0.22 -0.03  0 -0.055")),
    "hooked": (_curve("0 0.11  0.14 0.115  0.26 0.05  0.275 -0.1"),
        _curve("0.2 -0.035  0.1 -0.065  0 -0.085")),
    "decurved": (_curve("0 0.075  0.16 0.07  0.32 -0.01  0.43 -0.17"),
        _curve("0.41 -0.17  0.28 -0.06  0.15 -0.005  0 -0.05")),
}

# In shares of the trunk's half length and half depth.
TRUNK = _curve("0.42 0.97  -0.2 0.87  -0.75 0.5  -1.12 0.1  -1 -0.32  -0.52 -0.8  0.08 -1  0.6 -0.85  0.95 -0.32")
UNDERPARTS = _curve("-1.3 -0.05  -0.7 -0.1  -0.2 -0.3  0.3 -0.12  0.62 0.22  0.85 0.8  1.6 0.9  1.6 -1.5  -1.3 -1.5")
BAND = _curve("0.45 0.3  0.66 -0.08  0.66 -0.5  0.5 -1.1  0.8 -1.1  0.96 -0.5  0.95 -0.05  0.75 0.4")

# In shares of the head's radius.
CHEEK = _curve("1.2 0.5  0.3 0.45  -0.55 0.35  -0.75 -0.3  -0.2 -0.9  1.1 -1")
THROAT = _curve("1.05 -0.25  0.55 -0.3  0.1 -0.62  -0.12 -1.05  0.15 -1.5  0.75 -1.45  1.2 -0.8")
CAP = _curve("1.1 0.22  0.62 0.42  0.1 0.5  -0.5 0.38  -1 0.12  -1.25 0.6  -0.4 1.4  0.8 1.3")
STRIPE = _curve("1.05 0.12  0.4 0.2  -0.3 0.12  -0.95 -0.12  -1 -0.38  -0.3 -0.14  0.3 -0.06  1.05 -0.12")

# From the shoulder, with the tip behind it.
WING = _curve("0.04 -0.03  0.02 0.07  -0.12 0.125  -0.33 0.1  -0.55 0.035"
    "  -0.76 -0.05  -0.56 -0.085  -0.36 -0.14  -0.15 -0.165  -0.02 -0.115")
FLIGHT = _curve("-0.3 0.105  -0.55 0.035  -0.76 -0.05  -0.56 -0.085  -0.36 -0.14  -0.28 -0.15  -0.33 -0.03")

# One feather of the crest, of length 1.
PLUME = _curve("-0.2 0.16  0.4 0.27  0.8 0.24  1.12 -0.02  0.8 -0.16  0.4 -0.2  -0.2 -0.2")
# fmt: on
