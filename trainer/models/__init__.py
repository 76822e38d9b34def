"""What is trained: forward, FLOPs, weights from and for elsewhere."""
