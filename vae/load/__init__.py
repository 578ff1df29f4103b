"""Everything before the graph: read, filter, split, store, open and batch ratings."""

from vae.load.batches import Batch, TrainingBatches
from vae.load.dataset import Dataset, HeldOut
from vae.load.prefetch import prefetch
from vae.load.store import open_dataset

__all__ = ["Batch", "Dataset", "HeldOut", "TrainingBatches", "open_dataset", "prefetch"]
