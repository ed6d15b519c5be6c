"""`fmtrain generate`: let a model of the store, or in a folder, write."""

import argparse
import math
import os
from pathlib import Path

from fmtrain.artifacts.manifest import FILE, Artifact, read_manifest, verify
from fmtrain.errors import ConfigError
from launch.backends.environment import module
from launch.status import store_at
from launch.verbs import child
from launch.verbs.parser import Verbs, add_store, add_verb


def add(verbs: Verbs) -> None:
    text = "let a model write: fmtrain generate quickstart@v1 'def add(a, b):'"
    generate = add_verb(verbs, "generate", _generate, text, only_reads=False)
    generate.add_argument("model", help="NAME or NAME@vN, or a Hugging Face folder")
    generate.add_argument("prompt", help="one that begins with - stands last, after --")
    generate.add_argument("--max-new-tokens", type=int, default=128)
    generate.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    generate.add_argument("--seed", type=int, default=1)
    generate.add_argument("--raw", action="store_true", help="continue the text itself, without the chat template")
    add_store(generate)


def _generate(args: argparse.Namespace) -> int:
    """The model writes in a process of its own: this one never imports torch."""
    if args.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens={args.max_new_tokens}: 1 is the least")
    if not 0 <= args.temperature < math.inf:
        raise ConfigError(f"--temperature={args.temperature}: expected 0, which is greedy, or more")
    folder, known = Path(os.path.expanduser(args.model)), []
    if (folder / FILE).is_file():
        verify(Artifact(folder, read_manifest(folder)))
    elif not (folder / "config.json").is_file():
        artifact = store_at(args.store).get(args.model, "published", "model")
        verify(artifact)
        folder, known = artifact.path, artifact.manifest.payload.get("plugins", [])  # of the store: a folder may lie
    options = [f"--max-new-tokens={args.max_new_tokens}", f"--temperature={args.temperature}", f"--seed={args.seed}"]
    options += ["--raw"] if args.raw else []
    options += [f"--plugin={plugin['module']}" for plugin in known]
    command = module("fmtrain.generate", *options, "--", str(folder), args.prompt)
    return child.run(command)
