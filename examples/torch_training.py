"""Train a method of unseen in a plain PyTorch loop: regions, labels and attributes in, class scores out.

python torch_training.py [--method msdn] [--steps 120]
"""

import argparse

import torch

from unseen import ClassSpace, GradientMethod, create_method


def made_up(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, ClassSpace]:
    """Regions ``(n, R, C)`` that show the attributes of their classes, labels ``(n,)``, and 12 classes, 4 unseen."""
    attributes = (torch.rand(12, 10, generator=generator) > 0.5).float() + 0.05
    show = torch.randn(10, 32, generator=generator)
    labels = torch.arange(12).repeat(20)
    regions = (attributes @ show)[labels][:, None] + 0.5 * torch.randn(240, 9, 32, generator=generator)
    return regions, labels, ClassSpace(attributes, torch.arange(12) < 8)


def main() -> float:
    """Train on images of the seen classes; the accuracy on unseen ones, among these."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="msdn")
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    regions, labels, classes = made_up(generator)
    method = create_method(options.method, channels=32, vectors=torch.eye(10), seed=0)
    assert isinstance(method, GradientMethod)  # not one with a closed form
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    seen = torch.nonzero(classes.seen[labels])[:, 0]
    regions = method.prepare(regions)
    for step in range(options.steps):
        batch = seen[torch.randint(len(seen), (32,), generator=generator)]
        terms = method.loss(method(regions[batch]), labels[batch], classes)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, {name: round(term.item(), 3) for name, term in terms.items()})
    method.eval()
    with torch.no_grad():
        new = torch.nonzero(~classes.seen[labels])[:, 0]
        scores = method.class_scores(method(regions[new]), classes)
    scores[:, classes.seen] = -torch.inf
    accuracy = float((scores.argmax(dim=1) == labels[new]).float().mean())
    print(f"accuracy on 4 unseen classes, among these: {accuracy:.0%}")
    return accuracy


if __name__ == "__main__":
    main()
