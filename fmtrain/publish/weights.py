"""The weights of a published folder: as the model holds them, or in another type, or in files of another size.

Written a file at a time, so that no more than one lies in memory, whatever the model's size. Nothing is imported of
torch where they are copied.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fmtrain.artifacts.storage import write_json
from fmtrain.artifacts.weights import INDEX, Tensor, float_type, tensors, weight_files
from fmtrain.errors import ConfigError

if TYPE_CHECKING:
    import torch

TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # publish.dtype -> as torch calls it
_FLOATS = ("F64", "F32", "F16", "BF16")


def changes(folder: Path, dtype: str | None, shard_bytes: int | None) -> bool:
    """Whether the weights in `folder` are other than wanted; None is as they are."""
    largest = max(((folder / name).stat().st_size for name in weight_files(folder)), default=0)
    another = dtype is not None and dtype != float_type(tensors(folder))
    return another or (shard_bytes is not None and largest > shard_bytes)


def rewrite(folder: Path, out: Path, dtype: str | None, shard_bytes: int | None, done: Callable[[], None]) -> list[str]:
    """Write the weights of `folder` anew, numbers of floating point as `dtype`; the files that there are now.

    ConfigError where a number is beyond what the type can hold. `done` is called after each file.
    """
    import torch
    from huggingface_hub import split_state_dict_into_shards_factory
    from safetensors import safe_open
    from safetensors.torch import save_file

    found = tensors(folder)
    kept = float_type(found)
    target: torch.dtype | None = getattr(torch, dtype or kept or "", None)

    def size(tensor: Tensor) -> int:
        return tensor.elements * target.itemsize if target and tensor.dtype in _FLOATS else tensor.bytes

    split = split_state_dict_into_shards_factory(
        {name: found[name] for name in sorted(found)},
        get_storage_size=size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes or max(1, sum(map(size, found.values()))),
    )
    for file, names in split.filename_to_tensors.items():
        shard: dict[str, torch.Tensor] = {}
        for name in names:
            with safe_open(folder / found[name].file, framework="pt") as weights:
                tensor = weights.get_tensor(name)
            if target is not None and tensor.is_floating_point():
                shard[name] = _cast(name, tensor, target)
            else:
                shard[name] = tensor
        save_file(shard, out / file, metadata={"format": "pt"})
        done()
    files = sorted(split.filename_to_tensors)
    if not split.is_sharded:
        return files
    total = {"total_size": sum(map(size, found.values())), "total_parameters": sum(t.elements for t in found.values())}
    write_json(out / INDEX, {"metadata": total, "weight_map": dict(sorted(split.tensor_to_filename.items()))})
    return [*files, INDEX]


def _cast(name: str, tensor: "torch.Tensor", target: "torch.dtype") -> "torch.Tensor":
    made = tensor.to(target)
    if not made.isfinite().all() and tensor.isfinite().all():
        most = tensor.abs().max().item()
        raise ConfigError(
            f"publish.dtype: {name} holds {most:.3g}, which {target} cannot hold; give dtype=bf16 or dtype=fp32 to the "
            "publish stage"
        )
    return made
