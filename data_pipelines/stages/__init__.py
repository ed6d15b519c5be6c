"""One module a stage of the corpus wing, each with `run(stage) -> Result`."""
