"""Every config dataclass: plain, importable without torch, hydra or omegaconf. Registration with Hydra is launch's."""
