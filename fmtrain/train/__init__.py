"""The training stages: one loop for every objective, the engine behind it, optimizer, schedule, metrics, resumption."""
