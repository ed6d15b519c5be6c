"""The verbs of the command line, a module each: `add(verbs)` names its words, and a function of it answers."""
