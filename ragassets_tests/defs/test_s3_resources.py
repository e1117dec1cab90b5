"""A source in S3 through a resource of dagster-aws: its own keys, in one place."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource

from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.defs.graph import build_definitions
from ragassets.errors import ConfigurationError
from ragassets_tests.s3_server import BUCKET, S3Server, running_s3
from ragassets_tests.scenario import Project


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A bucket with an object, to which nothing in the environment leads."""
    with running_s3(monkeypatch) as server:
        server.put("docs/a.md", "hello")
        with monkeypatch.context() as patch:
            for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.delenv(name)
            patch.setenv("HANDBOOK_KEY", "theirs")
            # Else the SDK looks for keys of the machine, on an address that nobody answers.
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            yield server


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A watched bucket."""
    project = Project(tmp_path / "project")
    project.configure_source(
        uri=f"s3://{BUCKET}/docs", sensor=True, fetch={"retry": {"attempts": 1}}
    )
    return project


def handbook(s3: S3Server) -> S3Resource:
    """As a person configures it in Definitions."""
    return S3Resource(
        endpoint_url=s3.url,
        region_name="us-east-1",
        aws_access_key_id=dg.EnvVar("HANDBOOK_KEY"),
        aws_secret_access_key=dg.EnvVar("HANDBOOK_KEY"),
        max_attempts=1,
    )


def watch(definitions: dg.Definitions) -> None:
    """A tick of the source's sensor."""
    sensor = definitions.resolve_sensor_def("watch_handbook")
    workspace = (definitions.resources or {})["workspace"]
    with dg.DagsterInstance.ephemeral() as instance:
        sensor(dg.build_sensor_context(instance, resources={"workspace": workspace}))


def test_a_source_is_read_through_its_resource(project: Project, s3: S3Server) -> None:
    """The values of the environment are read when the client is made, not when definitions load."""
    watch(build_definitions(project.config, s3={"handbook": handbook(s3)}))
    assert project.rows(SOURCE_OBJECTS)["uri"].to_list() == [f"s3://{BUCKET}/docs/a.md"]


def test_without_it_nothing_leads_to_the_bucket(project: Project, s3: S3Server) -> None:
    """So it was the resource that did."""
    del s3
    watch(build_definitions(project.config))
    assert project.rows(SOURCE_OBJECTS).is_empty()


def test_assets_of_others_find_it(project: Project, s3: S3Server) -> None:
    """One configuration for the sensor and for whatever else works on the bucket."""

    @dg.asset
    def report(s3_handbook: S3Resource) -> None:
        body = s3_handbook.get_client().get_object(Bucket=BUCKET, Key="docs/a.md")["Body"].read()
        s3_handbook.get_client().put_object(Bucket=BUCKET, Key="report.txt", Body=body)

    resources = build_definitions(project.config, s3={"handbook": handbook(s3)}).resources or {}
    wanted = {"s3_handbook": resources["s3_handbook"]}
    assert dg.materialize([report], resources=wanted).success
    assert "PUT /handbook/report.txt?" in s3.requests


@pytest.mark.parametrize("name", ["handbok", "folder"])
def test_a_name_that_is_no_source_in_s3_is_refused(
    project: Project, s3: S3Server, name: str
) -> None:
    project.configure_source("folder", uri="./elsewhere")
    with pytest.raises(ConfigurationError, match=f"'{name}' is no source in S3"):
        build_definitions(project.config, s3={name: handbook(s3)})
