"""``deploy/cluster.yaml``, held to Ray's schema and defaults, and to an AWS that answers as AWS would."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from tests.deploy.recipes import GIB, PROCESS, ROOT, constraints, launcher


@pytest.fixture
def config() -> dict[str, Any]:
    """The file, with Ray's defaults for what it leaves out."""
    found: dict[str, Any] = prepare_config(launcher())
    return found


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What Ray makes of it in an account where nothing was made before."""
    config = {**prepare_config(launcher()), "head_node": {}}
    with pytest.MonkeyPatch.context() as patch, mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv(
            "HOME", str(tmp_path_factory.mktemp("home"))
        )  # Ray makes a key pair, and keeps it in ~/.ssh
        patch.setattr("time.sleep", lambda seconds: None)  # until AWS knows its own roles everywhere
        yield bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(config))


def options_of(command: str) -> dict[str, str]:
    """Of a `ray start`."""
    words = shlex.split(command.partition("ray start ")[2])
    return dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)


def test_ray_takes_it(config: dict[str, Any]) -> None:
    validate_config(config)
    head = config["available_node_types"][config["head_node_type"]]
    workers = [kind for name, kind in config["available_node_types"].items() if kind is not head]
    assert len(workers) == 2
    assert head["max_workers"] == 0  # no second machine of the head's kind
    assert all(kind["min_workers"] == 0 and kind["max_workers"] > 0 for kind in workers)


def test_no_ray_tasks_on_the_head(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert options_of(config["head_start_ray_commands"][-1])["num-cpus"] == "0"
    assert "InstanceMarketOptions" not in head["node_config"]


def test_nodes_need_the_token(config: dict[str, Any]) -> None:
    """The token is a file that is handed on; its text is nowhere in what is handed around."""
    environment = dict(
        option.removeprefix("--env=").split("=", 1)
        for option in config["docker"]["run_options"]
        if option.startswith("--env=")
    )
    assert environment["RAY_AUTH_MODE"] == "token"
    assert config["file_mounts"][environment["RAY_AUTH_TOKEN_PATH"]] == "~/.ray/auth_token"
    assert "RAY_AUTH_TOKEN" not in environment
    assert options_of(config["head_start_ray_commands"][-1])["dashboard-host"] == "127.0.0.1"


def test_journals_are_on_the_heads_disk(config: dict[str, Any]) -> None:
    docker = config["docker"]
    (volume,) = [option for option in docker["head_run_options"] if option.startswith("--volume=")]
    disk, place = volume.removeprefix("--volume=").split(":")
    assert f"--env=XDG_STATE_HOME={place}" in docker["run_options"]
    # With RAY_QJM_STATE a desk wouldn't be tied to the head.
    assert not any(
        "RAY_QJM_STATE" in option for option in [*docker["run_options"], *docker["head_run_options"]]
    )
    (command,) = config["initialization_commands"]
    assert command.split()[-1] == disk
    assert config["provider"]["cache_stopped_nodes"] is True


def test_versions_are_those_of_the_constraints(config: dict[str, Any]) -> None:
    version, minor = config["docker"]["image"].partition(":")[2].split("-py3")
    assert f"ray=={version}" in constraints(f"3.{minor}")
    name = f"constraints/3.{minor}.txt"
    assert any(name in command for command in config["setup_commands"])
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert f"FROM {config['docker']['image']}\n" in dockerfile and f"COPY --chown=ray {name} " in dockerfile
    for mounted in ("dist", "constraints"):
        assert mounted in config["file_mounts"].values()


def test_aws_takes_it(aws: dict[str, Any]) -> None:
    """Every kind of machine is started: a field or a type that AWS doesn't know is refused."""
    provider = AWSNodeProvider(aws["provider"], aws["cluster_name"])
    for name, kind in aws["available_node_types"].items():
        tags = dict.fromkeys((TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE), name)
        provider.create_node(kind["node_config"], tags, 1)
    assert len(provider.non_terminated_nodes({})) == 3
    for group in aws["available_node_types"].values():
        assert group["node_config"]["SecurityGroupIds"]
    assert aws["available_node_types"][aws["head_node_type"]]["resources"]["CPU"] == 0


def test_memory_of_workers_is_not_given_away_twice(aws: dict[str, Any]) -> None:
    """Processes, object store, what wide circuits may reserve, and 2 GiB for the system."""
    import boto3

    client = boto3.client("ec2", region_name=aws["provider"]["region"])
    objects = int(options_of(aws["worker_start_ray_commands"][-1])["object-store-memory"])
    for name, kind in aws["available_node_types"].items():
        if name == aws["head_node_type"]:
            continue
        machine = kind["node_config"]["InstanceType"]
        (found,) = client.describe_instance_types(InstanceTypes=[machine])["InstanceTypes"]
        cpus, memory = found["VCpuInfo"]["DefaultVCpus"], found["MemoryInfo"]["SizeInMiB"] * 2**20
        assert kind["resources"]["CPU"] == cpus
        given = kind["resources"]["memory"] + objects + cpus * PROCESS + 2 * GIB
        assert 0.9 * memory < given <= memory, (machine, given / GIB)
