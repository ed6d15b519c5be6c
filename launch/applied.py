"""A setting of a rule that nothing applies is refused: a corpus that it never met looks like one that it left whole.

Only what somebody said counts, which is what differs from the option that was chosen (`filter=fineweb` loosens c4).
"""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fmtrain.errors import ConfigError
from fmtrain.schema.load import dump, filled, load
from fmtrain.schema.root import Root
from fmtrain.schema.rules import Filter
from launch.recipes import place


def check_applied(root: Root, folder: Path | None) -> None:
    """ConfigError for the first setting of a rule that does not stand in its filter's list."""
    values = dump(root)
    own = {f"stages.{name}.filter": getattr(stage, "filter", None) for name, stage in root.stages.items()}
    for key, chosen in {"filter": root.filter, **own}.items():
        if chosen is not None:
            _check(key, chosen, values, folder)


def _check(key: str, chosen: Filter, values: dict[str, Any], folder: Path | None) -> None:
    whole = OmegaConf.create(values | {"filter": place("filter", chosen.name, None, folder)})
    said = OmegaConf.to_container(whole["filter"], resolve=True)  # it may refer to others
    option = load(Filter, filled(Filter, said))
    for rule in chosen.known():
        given, usual = vars(getattr(chosen, rule)), vars(getattr(option, rule))
        changed = next((name for name, value in given.items() if value != usual[name]), None)
        if changed and rule not in chosen.rules:
            rules = ",".join(chosen.rules)
            raise ConfigError(
                f"{key}.{rule}.{changed} is given, and {rule} does not stand among {key}.rules=[{rules}]: it would not "
                f"be applied. Add it ({key}.rules=[{','.join([*chosen.rules, rule])}]), or take the setting away"
            )
