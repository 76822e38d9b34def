"""A masked autoencoder of radiographs with a hierarchical encoder."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.hiera import HieraConfig
from trainer.recipes.base import Recipe

RECIPES = {
    "medhiera-t224": Recipe(
        Config(
            model=HieraConfig(),
            loader=LoaderConfig(
                batching="resized:batch_size=64,level=auto,patch=16,per_step=1,side=224", normalise="0.507,0.224"
            ),
            optim=OptimConfig(name="adam", lr=1e-4, weight_decay=0.0, betas=(0.9, 0.999), schedule="onecycle"),
            run=RunConfig(epochs=80),
        ),
        "med-hiera, a masked autoencoder of radiographs with Hiera-T at 224 pixels (report and public code)",
        """\
- They began with ImageNet's masked autoencoder: --init hiera_tiny_224.mae gives timm's encoder alone, --init with the
  public mae_hiera_tiny_224.pth the decoder, too.
- The report's table calls the model ViT-T/16; code and parameter count (27.9 M) are Hiera-T. 20 epochs in the ablation.
- They resized to 256 and cropped the centre to 224; here the central square is resized to 224.
- Normalised by (.516, .501, .503) / (.222, .225, .226) there; by their means here, as one channel.
- No weight decay, so that lists of exceptions do not matter. With one, tables of positions are without it: the
  encoder's as in the public code, and the decoder's, which the public code does not name.
- per_step=1 is for one rank, as theirs was: raise it, and lower batch_size, for more.
""",
    )
}
