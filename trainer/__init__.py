"""Masked-autoencoder pre-training on radiographs of any size. Sees only shardkit's public names."""
