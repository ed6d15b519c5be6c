"""The package list, computed from the folders: conf/ ships as fmtrain.conf, slurm/ as launch.templates."""

from setuptools import find_packages, setup

PREFIXES = {"conf": "fmtrain.conf", "slurm": "launch.templates"}


def moved(folder: str) -> list[str]:
    """Packages under a top-level folder, by the name they ship under."""
    return [PREFIXES[folder]] + [f"{PREFIXES[folder]}.{name}" for name in find_packages(folder)]


setup(
    packages=find_packages(include=["fmtrain*", "data_pipelines*", "launch*"]) + moved("conf") + moved("slurm"),
    package_dir={name: folder for folder, name in PREFIXES.items()},
    package_data={"": ["*.yaml", "*.jinja", "*.html", "*.sbatch", "*.txt", "*.sh", "*.bash", "*.zsh", "py.typed"]},
)
