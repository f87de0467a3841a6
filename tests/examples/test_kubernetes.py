"""The manifests: valid to Kubernetes, and in agreement with the server and with Ray."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import kubernetes_validate
import pytest
import yaml

from ip2p_fast.cli import main
from ip2p_fast.serving.api import create_app
from ip2p_fast.serving.server import _LAST_WORDS
from ip2p_fast.serving.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
MANIFESTS = [
    pytest.param(manifest, id=f"{path.stem}-{manifest['kind']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text())
]
RAY = "ray.io/v1"


def manifest(name, kind):
    return next(one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one["kind"] == kind)


def pod_specs(one):
    """Of everything in a manifest that makes pods."""
    if one["kind"] == "Deployment":
        return [one["spec"]["template"]["spec"]]
    if one["kind"] == "RayService":
        cluster = one["spec"]["rayClusterConfig"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        return [group["template"]["spec"] for group in groups]
    return []


@pytest.mark.parametrize("one", MANIFESTS)
def test_every_manifest_is_valid_to_kubernetes(one):
    if one["apiVersion"] != RAY:  # whose schema comes with KubeRay
        kubernetes_validate.validate(one, "1.30", strict=True)
    for spec in pod_specs(one):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, "1.30", strict=True)


@pytest.mark.parametrize("one", MANIFESTS)
def test_pods_run_as_the_user_of_the_image_and_no_other(one):
    user = int(re.search(r"useradd --uid (\d+)", (ROOT / "Dockerfile").read_text())[1])
    for spec in pod_specs(one):
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == user
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def server():
    spec = manifest("server.yaml", "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def test_probes_ask_paths_that_the_server_has():
    engine = SimpleNamespace(queue_length=0, in_flight=0)
    paths = {route.path for route in create_app(engine, Settings()).routes}
    _, container = server()
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["path"] for probe in probes.values()} == {"/readyz", "/healthz"} < paths
    assert probes["livenessProbe"]["path"] == "/healthz"  # not ready is no reason to be restarted
    names = {port["name"] for port in container["ports"]}
    assert {probe["port"] for probe in probes.values()} == names


def test_the_server_takes_its_arguments(capsys):
    _, container = server()
    arguments = container["args"]
    assert main([*arguments, "--max-rows", "0"]) == 2  # refused for this alone, and before a model is loaded
    assert "max_rows" in capsys.readouterr().err


def test_kubernetes_waits_longer_than_the_server_needs_to_finish():
    spec, container = server()
    grace = float(container["args"][container["args"].index("--grace") + 1])
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > grace + pause + _LAST_WORDS


def test_selectors_find_the_pods_and_the_autoscaler_its_deployment():
    labels = manifest("server.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for kind, of in (("Service", lambda spec: spec), ("PodDisruptionBudget", lambda spec: spec["selector"])):
        selector = of(manifest("server.yaml", kind)["spec"])
        assert selector.get("selector", selector.get("matchLabels")).items() <= labels
    target = manifest("server.yaml", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == manifest("server.yaml", "Deployment")["metadata"]["name"]


def test_ray_accepts_the_application():
    schema = pytest.importorskip("ray.serve.schema")
    from ip2p_fast.serving import ray as package
    from ip2p_fast.serving.ray.application import Arguments

    config = schema.ServeDeploySchema(
        **yaml.safe_load(manifest("ray_service.yaml", "RayService")["spec"]["serveConfigV2"])
    )
    (application,) = config.applications
    module, name = application.import_path.split(":")
    assert module == package.__name__ and callable(getattr(package, name))
    built = getattr(package, name)(Arguments.model_validate(application.args))
    front = built._bound_deployment
    names = {front.name, front.init_args[0]._bound_deployment.name}
    assert names == {deployment.name for deployment in application.deployments}


def test_what_the_application_asks_for_fits_the_pods():
    service = manifest("ray_service.yaml", "RayService")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    of = {deployment["name"]: deployment for deployment in application["deployments"]}
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cpus = float(group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
    each = of["engine"]["ray_actor_options"]["num_cpus"]
    fronts = of["front"]["num_replicas"] * of["front"]["ray_actor_options"]["num_cpus"]
    for pods, engines in (("minReplicas", "min_replicas"), ("maxReplicas", "max_replicas")):
        room = math.floor(cpus / each) * group[pods]
        assert room >= of["engine"]["autoscaling_config"][engines]
        assert cpus * group[pods] >= each * of["engine"]["autoscaling_config"][engines] + fronts
    grace = application["args"]["grace"]
    for spec in pod_specs(service):
        assert spec["terminationGracePeriodSeconds"] > grace


def test_the_version_of_ray_is_the_pinned_one():
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert manifest("ray_service.yaml", "RayService")["spec"]["rayClusterConfig"]["rayVersion"] == pinned
