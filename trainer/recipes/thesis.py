"""A masked autoencoder of 640,000 radiographs of any size, from a thesis."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.mae import MaeConfig
from trainer.recipes.base import Recipe

RECIPES = {
    "thesis-b48": Recipe(
        Config(
            model=MaeConfig(patch=48, loss="all", position="stretch", position_table=64, norm_eps=1e-12),
            # 64 packs of 23,040 tokens hold 1,024 images of the thesis' 1,441 tokens on average.
            loader=LoaderConfig(batching="packed:patch=48,per_step=64,tokens=23040", normalise="minmax"),
            optim=OptimConfig(lr=1e-4, floor=1e-5, warmup=0.5, decay="all"),
            run=RunConfig(epochs=10),
        ),
        "Buehler 2024, a masked autoencoder of 640,000 radiographs (thesis): ViT-B/48",
        """\
- 5 epochs of warm-up and 5 of cosine, by step. The code's warm-up peaks at lr + floor = 1.1e-4; here at 1e-4.
- The paper says "mean squared error"; the code takes it over all pixels, visible ones and padding too (loss=all).
  The usual loss: --model.loss masked.
- The paper says that positions are interpolated bilinearly; the code does it bicubically and stretches a table of
  64 x 64 over every grid (position=stretch). Equal distances in equal steps: --model.position absolute.
- In the code, weight decay acts on all parameters (decay=all). No clipping, no augmentation.
- fp16 with loss scaling; here bf16. 64 accumulated batches of 16 images in 36 bins; here packed.
  Theirs: --loader.batching binned:batch_size=16,bins=thesis,patch=48,per_step=64
- They divided images by their maximum; minmax moves their minimum to 0, too.
- Their split was 80/5/15 by patient, stratified by body region; shardkit's goes by a hash of the patient.
""",
    )
}
