"""The corpus wing: raw text to a filtered, deduplicated corpus, a tokenizer, token shards and examples.

`python -m data_pipelines STAGE_DIR` runs one stage. datatrove's blocks do the work, our scheduler (schedule.py) runs
them, in this process or on Ray. It knows nothing of torch, of the stage graph, or of how it is launched.
"""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # datatrove's bars have no place in a log; tqdm reads this when imported
