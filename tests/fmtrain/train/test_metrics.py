"""metrics.jsonl holds each step once, whatever was lost."""

from pathlib import Path

from fmtrain.train.metrics import MetricsFile, summarise


def row(step: int, loss: float = 1.0) -> dict[str, float]:
    made = {"step": step, "loss": loss, "tokens": 10, "tokens_per_second": 5.0 + step}
    return {**made, "step_seconds": 2.0, "data_wait_seconds": 0.5}


def test_cut_back_at_resume(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.resume(0)
    for step in range(8):
        metrics.append(row(step))
    metrics.close()
    with open(metrics.path, "a") as f:
        f.write('{"step": 8, "lo')  # killed here
    metrics.resume(5)
    metrics.append(row(5, loss=3.0))
    metrics.close()
    assert [r["step"] for r in metrics.rows()] == [0, 1, 2, 3, 4, 5]
    assert metrics.rows()[-1]["loss"] == 3.0
    metrics.resume(0)
    assert metrics.rows() == []


def test_summary() -> None:
    found = summarise([row(step, loss=20.0 - step) for step in range(20)])
    assert (found.loss, found.first_loss, found.tokens, found.seconds) == (1.5, 20.0, 200, 40.0)
    assert (found.tokens_per_second, found.data_wait_seconds) == (14.5, 10.0)
    assert summarise([row(0, 4.0)]).loss == 4.0
