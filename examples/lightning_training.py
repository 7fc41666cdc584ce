"""Train a method of unseen with Lightning's Trainer: the method is an ``nn.Module`` with a loss.

python lightning_training.py [--method global]
"""

import argparse

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from unseen import ClassSpace, GradientMethod, create_method


class ZeroShot(lightning.LightningModule):
    """A method and its classes."""

    def __init__(self, method: str, channels: int, classes: ClassSpace) -> None:
        super().__init__()
        made = create_method(method, channels=channels, vectors=torch.eye(classes.vectors.shape[1]), seed=0)
        assert isinstance(made, GradientMethod)  # not one with a closed form
        self.method = made
        self.classes = classes

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """The method's own loss."""
        regions, labels = batch
        terms = self.method.loss(self.method(self.method.prepare(regions)), labels, self.classes)
        self.log_dict({f"loss/{name}": term for name, term in terms.items()})
        return terms["total"]

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Accuracy on unseen classes, among these."""
        regions, labels = batch
        scores = self.method.class_scores(self.method(self.method.prepare(regions)), self.classes)
        scores = scores.masked_fill(self.classes.seen, -torch.inf)
        self.log("accuracy", (scores.argmax(dim=1) == labels).float().mean())

    def on_fit_start(self) -> None:
        """Classes go where the weights are."""
        self.classes = self.classes.to(self.device, torch.float32)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the method's weights."""
        return torch.optim.AdamW(self.method.parameters(), lr=3e-3)


def main() -> float:
    """Train on eight made-up classes, and name images of four others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="global")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    attributes = (torch.rand(12, 10, generator=generator) > 0.5).float() + 0.05
    labels = torch.arange(12).repeat(20)
    shown = (attributes @ torch.randn(10, 32, generator=generator))[labels][:, None]
    data = TensorDataset(shown + 0.5 * torch.randn(240, 9, 32, generator=generator), labels)
    seen = labels < 8
    train, test = (torch.utils.data.Subset(data, torch.nonzero(rows)[:, 0].tolist()) for rows in (seen, ~seen))
    module = ZeroShot(options.method, 32, ClassSpace(attributes, torch.arange(12) < 8))
    trainer = lightning.Trainer(
        max_epochs=20,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(train, 32, shuffle=True), DataLoader(test, 80))
    accuracy = float(trainer.callback_metrics["accuracy"])
    print(f"accuracy on 4 unseen classes, among these: {accuracy:.0%}")
    return accuracy


if __name__ == "__main__":
    main()
