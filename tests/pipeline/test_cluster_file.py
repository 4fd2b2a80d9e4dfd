"""`ray_cluster.yaml`, as far as it can be tried without a cloud."""

import json
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import boto3
import botocore.session
import jsonschema
import pytest
import ray
import yaml

from tests.server import Web

ROOT = Path(__file__).parents[2]


def cluster() -> dict:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def schema() -> dict:
    return json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())


def errors(file: dict) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(schema()).iter_errors(file)]


def test_ray_accepts_the_cluster_file():
    assert errors(cluster()) == []


def test_the_schema_would_refuse_a_node_without_a_configuration():
    broken = cluster()
    del broken["available_node_types"]["gpu"]["node_config"]
    assert errors(broken) == ["'node_config' is a required property"]


def test_the_image_holds_the_ray_of_the_lock():
    locked = next(
        line.split("==")[1].split()[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.startswith("ray==")
    )
    assert f":{locked}-py311" in cluster()["docker"]["image"]
    assert all(type_["min_workers"] == 0 for name, type_ in cluster()["available_node_types"].items() if name != "head")


@pytest.mark.parametrize("mounted", [False, True])
def test_machines_with_a_disk_of_their_own_have_scratch_on_it(mounted, tmp_path):
    told = {
        "lsblk": "printf 'nvme0n1 Amazon Elastic Block Store\\nnvme1n1 Amazon EC2 NVMe Instance Storage\\n'",
        "mountpoint": f"exit {int(not mounted)}",
        "sudo": 'echo "$@"',
    }
    for name, does in told.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    cpu = cluster()["available_node_types"]["cpu"]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = "\n".join(cpu["initialization_commands"])
    did = subprocess.run(["bash", "-e", "-c", script], env=path, capture_output=True, text=True, check=True).stdout
    disk = ["mkfs.ext4 -q -E nodiscard /dev/nvme1n1", "mount /dev/nvme1n1 /mnt/scratch"]
    assert did.splitlines() == ["mkdir -p /mnt/scratch", *([] if mounted else disk), "chmod 1777 /mnt/scratch"]
    config = {**cluster()["docker"], **cpu["docker"]}  # as Ray's autoscaler merges them
    assert "-v /mnt/scratch:/tmp" in config["worker_run_options"] and config["run_options"]


def test_the_head_tells_nobody_that_it_is_used():
    (start,) = (line for line in cluster()["head_start_ray_commands"] if "ray start" in line)
    assert "--disable-usage-stats" in start


def test_every_worker_has_a_profile_to_reach_the_bucket_with_since_ray_gives_one_to_the_head_alone(monkeypatch):
    from ray.autoscaler._private.aws import config

    own = SimpleNamespace(arn="arn:aws:iam::1:instance-profile/ray-autoscaler-v1", roles=["ray-autoscaler-v1"])
    monkeypatch.setattr(config, "_get_instance_profile", lambda name, file: own)
    filled = config._configure_iam_role({**cluster(), "head_node": {}})
    types = filled["available_node_types"]
    profiles = {name: type_["node_config"].get("IamInstanceProfile") for name, type_ in types.items()}
    assert profiles == {"head": None, "cpu": {"Name": "talkingface-worker"}, "gpu": {"Name": "talkingface-worker"}}
    assert filled["head_node"]["IamInstanceProfile"] == {"Arn": own.arn}


def test_the_head_is_told_which_right_it_needs_to_start_workers_with_a_profile():
    said = (ROOT / "ray_cluster.yaml").read_text()
    rights = ("iam:PassRole", "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject")
    assert all(right in said for right in rights)


def _words(start: str) -> str:
    """The words of a command in the comments at the top of the file, from one on up to the end of its JSON."""
    lines = (ROOT / "ray_cluster.yaml").read_text().splitlines()
    said = " ".join(line.lstrip("# ") for line in lines[: lines.index("cluster_name: talkingface-wild")])
    return re.search(rf"{start} .*?'(.*?)'", said)[1]


def test_the_rule_against_uploads_that_were_broken_off_is_one_that_s3_takes(bucket):
    client = boto3.client("s3")
    client.put_bucket_lifecycle_configuration(
        Bucket="set", LifecycleConfiguration=json.loads(_words("put-bucket-lifecycle-configuration"))
    )
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket="set")["Rules"]
    assert rule["Status"] == "Enabled" and rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


@pytest.mark.parametrize("who", ["head", "worker"])
def test_a_machine_that_is_slow_to_hand_out_its_role_is_asked_again(who, monkeypatch):
    (start,) = (line for line in cluster()[f"{who}_start_ray_commands"] if "ray start" in line)
    role, keys = "/latest/meta-data/iam/security-credentials/", {"AccessKeyId": "A", "SecretAccessKey": "B"}
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with Web() as web:
        web.page(role, "talkingface-worker")
        web.page(f"{role}talkingface-worker", json.dumps({**keys, "Token": "C", "Expiration": "2999-01-01T00:00:00Z"}))
        web.status(role, 500, times=2)
        for name, value in [("AWS_EC2_METADATA_SERVICE_ENDPOINT", web.url), *re.findall(r"(AWS_\w+)=(\S+)", start)]:
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        assert botocore.session.Session().get_credentials().access_key == "A"
