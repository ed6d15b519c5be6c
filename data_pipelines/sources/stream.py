"""What a reader needs of the foundation, under the names that plug-ins use: see docs/corpus/plugins.md."""

from fmtrain.artifacts.lines import Input, Line, read_lines
from fmtrain.artifacts.unpack import unpack

__all__ = ["Input", "Line", "read_lines", "unpack"]
