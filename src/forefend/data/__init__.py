"""Image data sets.

`load` reads published sets, files and folders. `from_tensors` and `as_image_dataset` wrap images in
memory and datasets of torch and Hugging Face. `sample` and `split` draw seeded stratified subsets.
`crop_flip` augments a batch.
"""

from __future__ import annotations

from forefend.data.augmentation import augmentation, crop_flip
from forefend.data.dataset import ImageDataset, from_tensors
from forefend.data.registry import as_image_dataset, load
from forefend.data.sampling import sample, split

__all__ = ["ImageDataset", "as_image_dataset", "augmentation", "crop_flip", "from_tensors", "load", "sample", "split"]
