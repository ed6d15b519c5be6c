"""The corpus wing: raw text to a filtered, deduplicated corpus, a tokenizer, token shards and examples.

`python -m data_pipelines STAGE_DIR` runs one stage. Readers, rules and deduplication are our own, those rules that
datatrove has too are held against its decisions by tests, and a recipe may name datatrove's own filters and formatters
(`filter.rules=[datatrove:NAME]`). Our scheduler (schedule.py) runs it all, in this process or on Ray. This wing knows
nothing of torch, of the stage graph, or of how it is launched.
"""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # datatrove's bars have no place in a log; tqdm reads this when imported
