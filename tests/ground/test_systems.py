import numpy as np
import pytest
import torch

from unseen.ground.systems import gram, inverse_factor, solved


def rows(n=9, channels=6):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((n, channels)))


def test_the_lower_triangle_and_solutions_are_those_of_numpy():
    x, targets = rows(), rows(6, 2)
    full = x.numpy().T @ x.numpy()
    for given in (x, rows(6, 9).T):  # also a view that is not contiguous
        lower = gram(given).tril().numpy()
        np.testing.assert_allclose(lower, np.tril(given.numpy().T @ given.numpy()), atol=1e-12)
    before = gram(x)
    for shift in (0.0, 3.0):
        found = solved(before, shift, targets).numpy()
        np.testing.assert_allclose(found, np.linalg.solve(full + shift * np.eye(6), targets.numpy()), atol=1e-10)
    np.testing.assert_array_equal(before.tril(), gram(x).tril())  # left as it was
    inverse = inverse_factor(before).numpy()
    np.testing.assert_allclose(inverse @ full @ inverse.T, np.eye(6), atol=1e-10)
    np.testing.assert_array_equal(inverse, np.tril(inverse))


def test_a_matrix_that_is_not_definite_is_said():
    with pytest.raises(torch.linalg.LinAlgError):
        solved(-torch.eye(3, dtype=torch.float64), 0.5, torch.ones(3, 1, dtype=torch.float64))
