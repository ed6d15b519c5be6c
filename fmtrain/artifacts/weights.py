"""What the weights of a Hugging Face folder are, by the headers of its safetensors files. No torch in here."""

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fmtrain.artifacts.inside import inside, read_object
from fmtrain.artifacts.model_folder import INDEX as INDICES
from fmtrain.artifacts.model_folder import SINGLE
from fmtrain.errors import InputError

WHOLE, INDEX = SINGLE["safetensors"], INDICES["safetensors"]
_MOST_HEADER = 100 << 20  # bytes; safetensors' own limit
_MOST_PARAMETERS = 10**15
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Tensor:
    """One of a model's tensors: the file that holds it, its type as safetensors calls it, its shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * _BITS.get(self.dtype, 8) // 8


def weight_files(folder: Path) -> list[str]:
    """The files that transformers reads of a folder: it may hold others beside them."""
    if (folder / WHOLE).is_file():
        return [WHOLE]
    if (folder / INDEX).is_file():
        return sorted(set(read_object(folder, INDEX, _MOST_HEADER)["weight_map"].values()))
    return []


def tensors(folder: Path) -> dict[str, Tensor]:
    """Name -> tensor, in the order of the files; InputError where a header is none."""
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        for name, entry in _header(inside(folder, file)).items():
            if name != "__metadata__":
                found[name] = _tensor(file, entry)
    return found


def float_type(found: dict[str, Tensor]) -> str | None:
    """What most of the numbers are kept in, as torch calls it; None where that is none of its own (a quantized one)."""
    counted = Counter[str]()
    for tensor in found.values():
        counted[tensor.dtype] += tensor.elements
    (most, _), *_ = counted.most_common(1) or [("", 0)]
    return _FLOATS.get(most)


def _header(path: Path) -> dict[str, object]:
    try:
        with open(path, "rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            if length > _MOST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(f.read(length))
    except (ValueError, struct.error, RecursionError) as e:
        raise InputError(f"{path} is no safetensors file ({e}); get the file again") from None
    if not isinstance(header, dict):
        raise InputError(f"{path} is no safetensors file (its header is no object); get the file again")
    return header


def _tensor(file: str, entry: object) -> Tensor:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(isinstance(n, int) and 0 <= n < _MOST_PARAMETERS for n in shape):
        raise InputError(f"{file}: a tensor whose shape is {shape!r}; get the file again")
    assert isinstance(entry, dict)
    return Tensor(file, str(entry.get("dtype")), tuple(shape))
