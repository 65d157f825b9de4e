"""Images as tensors: decoded and resized once, in worker processes if there are many, kept in memory if they fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eva_bench.system.errors import UserError

FEW = 256  # so many images are decoded faster here than worker processes start
CACHE_BYTES = 2 * 1024**3  # of decoded images that this process keeps for its next runs

# Images beside their tensors: an array that is kept cannot lend its identity to another one.
_cache: OrderedDict[tuple, tuple[Sequence[Any], Tensor]] = OrderedDict()


def decode(image: Any, size: int, interpolation: str) -> Tensor:
    """One image as uint8 (3, size, size), its sides resized independently.

    Args:
        image: path of a file, or an array (height, width, 3) of uint8.
        size: of the result's sides, in pixels.
        interpolation: name of a filter of PIL: bicubic, bilinear, nearest.

    Raises:
        UserError: the file is missing or no image, by name.
    """
    if isinstance(image, np.ndarray):
        picture = Image.fromarray(image)
    else:
        try:
            with Image.open(image) as opened:
                picture = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"Image '{_short(image)}' cannot be decoded: {type(error).__name__}.") from error
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling[interpolation.upper()])
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def decoded(images: Sequence[Any], size: int, interpolation: str, workers: int = 0) -> Tensor:
    """All images as one uint8 tensor (n, 3, size, size), from memory if this process has decoded them before.

    Raises:
        UserError: as `decode`.
    """
    key = (*(image if isinstance(image, str) else id(image) for image in images), size, interpolation)
    if key not in _cache:
        _cache[key] = images, torch.cat(list(stream(images, size, interpolation, 64, workers)))
        while len(_cache) > 1 and sum(tensor.nbytes for _, tensor in _cache.values()) > CACHE_BYTES:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    return _cache[key][1]


def batches(
    images: Sequence[Any], size: int, interpolation: str, batch_size: int, workers: int = 0
) -> Iterator[Tensor]:
    """Batches of at most batch_size images, uint8 (n, 3, size, size), in order.

    Few images are decoded at once and kept in memory; many are decoded while the ones before are used.
    """
    if 3 * size * size * len(images) <= CACHE_BYTES // 4:
        yield from decoded(images, size, interpolation, workers).split(batch_size)
    else:
        yield from stream(images, size, interpolation, batch_size, workers)


def stream(images: Sequence[Any], size: int, interpolation: str, batch_size: int, workers: int) -> Iterator[Tensor]:
    """Batches decoded one after the other, ahead of their use if there are worker processes."""
    loader = DataLoader(
        _Images(images, size, interpolation),
        batch_size,
        num_workers=workers if len(images) > FEW else 0,
        collate_fn=_stack,
    )
    for batch in loader:
        if isinstance(batch, str):
            raise UserError(batch)
        yield batch


class _Images(Dataset):
    def __init__(self, images: Sequence[Any], size: int, interpolation: str):
        self.images, self.size, self.interpolation = images, size, interpolation

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return decode(self.images[index], self.size, self.interpolation)
        except UserError as error:  # a worker would wrap it in its traceback
            return str(error)


def _stack(items: list[Tensor | str]) -> Tensor | str:
    return next((item for item in items if isinstance(item, str)), None) or torch.stack(items)


def _short(path: str) -> str:
    """The last parts of a path, which name an image of an archive without naming the machine's folders."""
    return "/".join(str(path).split("/")[-4:])
