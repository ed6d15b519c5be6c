"""What a shell offers when Tab is pressed: the line so far is read here, and answered from our own tables.

`complete.bash` and `complete.zsh` are all that runs in the shell: they ask `fmtrain completion`. No library does this
for us: argcomplete knows parsers, and most of what is typed here are Hydra's overrides.
"""
