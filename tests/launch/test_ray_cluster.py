"""Where ranks run, from what the actors report: torch's variables for every rank."""

from launch.backends.ray_cluster import Place, rank_envs


def test_one_rank_needs_no_group() -> None:
    assert rank_envs([Place("a", "10.0.0.1", 7, "n1", [])]) == [{}]


def test_two_nodes_of_two_gpus() -> None:
    places = [
        Place(n, f"10.0.0.{n}", 7000 + i, f"n{n}", [str(g)])
        for i, (n, g) in enumerate([("1", 1), ("1", 0), ("2", 0), ("2", 1)])
    ]
    envs = rank_envs(places)
    assert [e["RANK"] for e in envs] == ["0", "1", "2", "3"]
    assert [e["LOCAL_RANK"] for e in envs] == ["0", "1", "0", "1"]
    assert {(e["MASTER_ADDR"], e["MASTER_PORT"], e["WORLD_SIZE"], e["LOCAL_WORLD_SIZE"]) for e in envs} == {
        ("10.0.0.1", "7000", "4", "2")
    }
    # rank r's LOCAL_RANK-th visible GPU is the one that Ray gave to its actor
    for place, env in zip(places, envs, strict=True):
        assert env["CUDA_VISIBLE_DEVICES"].split(",")[int(env["LOCAL_RANK"])] == place.gpus[0]


def test_without_gpus_nothing_is_said_of_them() -> None:
    envs = rank_envs([Place("a", "127.0.0.1", 7, "h", []), Place("a", "127.0.0.1", 8, "h", [])])
    assert all("CUDA_VISIBLE_DEVICES" not in env for env in envs)
