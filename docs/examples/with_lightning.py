"""Lightning: the loader is the dataloader, on any number of devices, and resumes at the exact micro-batch.

python docs/examples/with_lightning.py DATASET RUN_FOLDER [CHECKPOINT]

The loader is made once, before Lightning starts its ranks; it asks for its rank when iteration begins.
"""

import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from shardkit import Loader, Packed, PackedBatch

PER_STEP, RANKS = 2, 1


class Autoencoder(lightning.LightningModule):
    """Squeezes patches through a narrow layer."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(patch**2, 16), torch.nn.Linear(16, patch**2))

    def training_step(self, batch: PackedBatch, index: int) -> torch.Tensor:
        """Mean squared error of the patches of images; those of empty places have weight 0."""
        weight = batch.weight[batch.image.long()]
        error = ((self.net(batch.patches) - batch.patches) ** 2).mean(1)
        loss = (error * weight).sum() / weight.sum().clamp(min=1)
        self.log("loss", loss, batch_size=int(batch.weight.sum()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), 1e-3)


def main(data: str, folder: str, checkpoint: str | None = None) -> None:
    """Two epochs, a checkpoint every second step."""
    loader = Loader(data, batching=Packed(tokens=2048, patch=8, level=3, per_step=PER_STEP), seed=0)
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=RANKS,
        max_epochs=2,
        accumulate_grad_batches=PER_STEP // RANKS,  # a global step of the plan is a step of the optimizer
        callbacks=[ModelCheckpoint(Path(folder), filename="{step}", every_n_train_steps=2, save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
    )
    trainer.fit(Autoencoder(8), loader, ckpt_path=checkpoint)  # no DataLoader around it: torch's saves no state
    print(f"{trainer.global_step} steps, loss {float(trainer.callback_metrics['loss']):.6f}, {loader}")


if __name__ == "__main__":
    main(*sys.argv[1:])
