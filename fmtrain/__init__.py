"""fmtrain: from raw text to an aligned, evaluated, versioned model with one configuration."""

__version__ = "0.1.0"
