"""The Kubernetes manifests and compose files: valid, consistent, and true of the real service."""

from __future__ import annotations

import copy
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import numpy as np
import pytest
import yaml
from server_process import Server, running
from small_artifacts import write_forecaster

from artifact.arrays import encode_npy
from serve.settings import OTHERS, PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
FIELDS = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
KEY = "0123456789abcdef-of-the-secret"
KEYED = {"Authorization": f"Bearer {KEY}"}
HELM_VALUES = {"prometheus-values.yaml", "prometheus-adapter-values.yaml"}
METRIC = "axonnx_queue_wait_seconds"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


MANIFESTS = read("kustomization.yaml")["resources"]
POD = read("deployment.yaml")["spec"]["template"]
RUNTIME = read("kserve/serving-runtime.yaml")
INFERENCE_SERVICE = read("kserve/inference-service.yaml")


@dataclass(frozen=True)
class Workload:
    """What a Deployment and a KServe runtime have in common."""

    container: dict[str, Any]
    grace: int
    security: dict[str, Any]  # of the pod and the container together
    service_links: bool
    token: bool
    mounts: dict[str, dict[str, Any]]

    @property
    def settings(self) -> dict[str, str]:
        """Settings by field name; values that Kubernetes fills in as it would."""
        filled = {
            "AXONNX_SLOTS": self.container["resources"]["requests"]["cpu"],
            "AXONNX_API_KEYS": KEY,
        }
        return {
            entry["name"].removeprefix(PREFIX).lower(): entry.get("value") or filled[entry["name"]]
            for entry in self.container["env"]
        }


def deployment() -> Workload:
    spec = POD["spec"]
    (container,) = spec["containers"]
    return Workload(
        container,
        spec["terminationGracePeriodSeconds"],
        spec["securityContext"] | container["securityContext"],
        spec["enableServiceLinks"],
        spec["automountServiceAccountToken"],
        {mount["mountPath"]: mount for mount in container["volumeMounts"]},
    )


def kserve() -> Workload:
    (container,) = RUNTIME["spec"]["containers"]
    predictor = INFERENCE_SERVICE["spec"]["predictor"]
    return Workload(
        container,
        predictor["terminationGracePeriodSeconds"],
        container["securityContext"],
        predictor["enableServiceLinks"],
        predictor["automountServiceAccountToken"],
        {mount["mountPath"]: mount for mount in container["volumeMounts"]},
    )


WORKLOADS = pytest.mark.parametrize(
    "workload", [deployment(), kserve()], ids=["deployment", "kserve"]
)


def test_every_file_is_in_a_kustomization() -> None:
    for folder in (FOLDER, FOLDER / "kserve"):
        named = set(yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"])
        there = {path.name for path in folder.glob("*.yaml")}
        assert named == there - {"kustomization.yaml", *HELM_VALUES}


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(read(name), version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pods_of_kserve_are_valid(version: str) -> None:
    """KServe's own fields are checked by its own classes, in test_kserve_client.py."""
    predictor = INFERENCE_SERVICE["spec"]["predictor"]
    ours = {"minReplicas", "maxReplicas", "model"}
    spec = {
        **{key: value for key, value in predictor.items() if key not in ours},
        "containers": RUNTIME["spec"]["containers"],
        "volumes": RUNTIME["spec"]["volumes"],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    kubernetes_validate.validate(pod, version, strict=True)


def test_the_validator_finds_what_is_wrong() -> None:
    wrong = copy.deepcopy(read("deployment.yaml"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def deployment_files() -> list[Path]:
    return [*FOLDER.rglob("*.yaml"), FOLDER / "README.md", *ROOT.glob("compose*.yaml")]


def test_every_variable_is_a_setting() -> None:
    for path in deployment_files():
        names = set(re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", path.read_text()))
        assert names <= FIELDS | OTHERS, path


def test_compose_hands_on_every_setting() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    own = {f"{PREFIX}{name}" for name in ("HOST", "PORT", "MODELS")}
    handed_on = compose["x-settings"]
    assert {name for name in handed_on if not name.startswith("OTEL_")} == FIELDS - own
    assert list(handed_on) == sorted(handed_on)
    assert set(handed_on.values()) == {None}
    for name in ("serve", "serve-gpu"):
        assert set(compose["services"][name]["environment"]) == set(handed_on)
    assert compose["services"]["serve-gpu"]["environment"]["AXONNX_PROVIDER"] == "cuda"


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_compose_waits_longer_than_the_service_needs_to_stop() -> None:
    serve = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["serve"]
    scale = (ROOT / "compose.scale.yaml").read_text()
    default = Settings()
    drain = float(re.findall(r"\{AXONNX_DRAIN_SECONDS:-(\d+)\}", scale)[0])
    grace = seconds(serve["stop_grace_period"])
    assert grace > max(drain, default.drain_seconds) + default.shutdown_timeout
    # HAProxy has seen twice that the replica is not ready, before it listens no more.
    check = re.search(
        r"default-server check inter (\d+)s .*fall (\d+)",
        (ROOT / "docker/balancer.cfg").read_text(),
    )
    assert check is not None
    assert drain > int(check[1]) * int(check[2])


@WORKLOADS
def test_it_may_stop_in_peace(workload: Workload) -> None:
    given = Settings(**{**workload.settings, "models": "x", "model_name": "x"})  # type: ignore[arg-type]
    assert workload.grace > given.drain_seconds + given.shutdown_timeout
    assert given.shutdown_timeout > given.request_timeout
    probe = workload.container["readinessProbe"]
    assert given.drain_seconds > probe["periodSeconds"] * probe["failureThreshold"]


def bytes_of(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 2**20, "Gi": 2**30}[unit]


@WORKLOADS
def test_what_is_held_at_once_fits_the_memory(workload: Workload) -> None:
    given = {name: workload.settings[name] for name in ("max_body_bytes", "max_pending_bytes")}
    limit = bytes_of(workload.container["resources"]["limits"]["memory"])
    assert int(given["max_body_bytes"]) <= int(given["max_pending_bytes"]) <= limit / 4
    assert "cpu" not in workload.container["resources"]["limits"]


@WORKLOADS
def test_it_is_locked_down(workload: Workload) -> None:
    security = workload.security
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 10001
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert workload.token is False
    # Else a Service named axonnx sets AXONNX_PORT=tcp://… in every pod.
    assert workload.service_links is False
    artifact = workload.mounts.pop("/artifact", {"readOnly": True})
    assert artifact["readOnly"] is True
    assert set(workload.mounts) == {"/tmp"}


def test_the_parts_find_one_another() -> None:
    labels = POD["metadata"]["labels"]
    deployment, service = read("deployment.yaml"), read("service.yaml")
    (container,) = POD["spec"]["containers"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        read("disruption-budget.yaml")["spec"]["selector"]["matchLabels"],
        read("network-policy.yaml")["spec"]["podSelector"]["matchLabels"],
        *(
            constraint["labelSelector"]["matchLabels"]
            for constraint in POD["spec"]["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    assert read("network-policy.yaml")["spec"]["ingress"][0]["ports"][0]["port"] in ports
    target = read("autoscaler.yaml")["spec"]["scaleTargetRef"]
    for key in ("apiVersion", "kind"):
        assert target[key] == deployment[key]
    assert target["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # the autoscaler owns it
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    claim = read("claim.yaml")["metadata"]["name"]
    assert volumes["artifact"]["persistentVolumeClaim"] == {"claimName": claim, "readOnly": True}
    assert INFERENCE_SERVICE["spec"]["predictor"]["model"]["storageUri"].startswith(
        f"pvc://{claim}/"
    )


def test_the_runtime_is_the_one_of_the_inference_service() -> None:
    model = INFERENCE_SERVICE["spec"]["predictor"]["model"]
    assert model["runtime"] == RUNTIME["metadata"]["name"]
    formats = {entry["name"]: entry for entry in RUNTIME["spec"]["supportedModelFormats"]}
    assert formats[model["modelFormat"]["name"]]["autoSelect"] is True
    assert formats["onnx"]["autoSelect"] is False
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]
    (container,) = RUNTIME["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["image"] == POD["spec"]["containers"][0]["image"]
    assert kserve().settings["models"] == "/mnt/models"
    assert kserve().settings["model_name"] == "{{.Name}}"


def test_the_image_is_the_one_that_compose_builds() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    image = POD["spec"]["containers"][0]["image"]
    assert image == compose["services"]["serve"]["image"]
    (renamed,) = read("kustomization.yaml")["images"]
    assert image == f"{renamed['name']}:{renamed['newTag']}"
    user = deployment().security["runAsUser"]
    assert f"USER {user}:{user}" in (ROOT / "docker/serve.Dockerfile").read_text()


def test_the_autoscaler_asks_for_what_the_adapter_makes() -> None:
    (metric,) = read("autoscaler.yaml")["spec"]["metrics"]
    (rule,) = read("prometheus-adapter-values.yaml")["rules"]["custom"]
    series = re.match(r"\w+", rule["seriesQuery"])[0]  # type: ignore[index]
    made = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), series)
    assert made == metric["pods"]["metric"]["name"] == METRIC
    asked = set(re.findall(r"axonnx_\w+", rule["metricsQuery"]))
    assert asked == {f"{METRIC}_sum", f"{METRIC}_count"}


@pytest.fixture(scope="module", params=[deployment(), kserve()], ids=["deployment", "kserve"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Workload]]:
    """The service under the settings of a manifest."""
    workload: Workload = request.param
    folder = tmp_path_factory.mktemp("server")
    settings = workload.settings
    del settings["models"]
    if "model_name" in settings:
        settings["model_name"] = INFERENCE_SERVICE["metadata"]["name"]
    settings["drain_seconds"] = "0"  # the real one would only make the test longer
    with running(folder, write_forecaster(folder / "artifact"), **settings) as server:
        yield server, workload


def test_probes_find_the_real_paths(server: tuple[Server, Workload]) -> None:
    running_server, workload = server
    port = {port["name"]: port["containerPort"] for port in workload.container["ports"]}
    (number,) = port.values()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = workload.container[probe]["httpGet"]
        assert get["port"] in {number, *port}
        answer = httpx.get(running_server.url + get["path"])
        assert answer.status_code == 200, probe


def test_prometheus_finds_the_pods_and_their_metrics(server: tuple[Server, Workload]) -> None:
    running_server, workload = server
    (job,) = yaml.safe_load(read("prometheus-values.yaml")["extraScrapeConfigs"])
    kept = {
        rule["source_labels"][0].removeprefix("__meta_kubernetes_pod_"): rule["regex"]
        for rule in job["relabel_configs"]
        if rule.get("action") == "keep"
    }
    assert (
        POD["metadata"]["labels"]["app.kubernetes.io/name"] == kept["label_app_kubernetes_io_name"]
    )
    assert kept["container_port_name"] in {port["name"] for port in deployment().container["ports"]}
    labels = {rule["target_label"] for rule in job["relabel_configs"] if "target_label" in rule}
    (rule,) = read("prometheus-adapter-values.yaml")["rules"]["custom"]
    assert labels == set(rule["resources"]["overrides"])
    if "api_keys" in workload.settings:  # the job sends a key; annotations could not
        assert "credentials_file" in job["authorization"]
        assert httpx.get(running_server.url + job["metrics_path"]).status_code == 401
        assert httpx.get(running_server.url + job["metrics_path"], headers=KEYED).status_code == 200
    else:
        noted = RUNTIME["spec"]["annotations"]
        assert noted["prometheus.kserve.io/port"] == str(
            workload.container["ports"][0]["containerPort"]
        )
        path = noted["prometheus.kserve.io/path"]
        assert httpx.get(running_server.url + path).status_code == 200


def test_the_key_of_the_secret_opens_it(server: tuple[Server, Workload]) -> None:
    running_server, workload = server
    body = encode_npy(np.ones((1, 20, 4, 9), np.float32))
    headers = {"Content-Type": "application/x-npy"}
    keyed = {**headers, **KEYED}
    url = f"{running_server.url}/predict"
    assert httpx.post(url, content=body, headers=keyed).status_code == 200
    expected = 401 if "api_keys" in workload.settings else 200
    assert httpx.post(url, content=body, headers=headers).status_code == expected


def test_the_model_has_the_name_of_the_inference_service(server: tuple[Server, Workload]) -> None:
    running_server, workload = server
    renamed = "model_name" in workload.settings  # the deployment keeps the artifact's name
    name = INFERENCE_SERVICE["metadata"]["name"] if renamed else "small-forecaster"
    answer = httpx.get(f"{running_server.url}/v2/models/{name}/ready", headers=KEYED)
    assert answer.status_code == 200


def test_the_metric_exists(server: tuple[Server, Workload]) -> None:
    running_server, _ = server
    body = encode_npy(np.ones((1, 20, 4, 9), np.float32))
    headers = {"Content-Type": "application/x-npy", **KEYED}
    assert httpx.post(f"{running_server.url}/predict", content=body, headers=headers).is_success
    text = httpx.get(f"{running_server.url}/metrics", headers=KEYED).text
    for name in (f"{METRIC}_sum", f"{METRIC}_count"):
        assert re.search(rf'^{name}\{{.*model="', text, re.MULTILINE), name


def docker(*words: object, timeout: float = 60) -> str:
    done = subprocess.run(
        ["docker", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.docker
@WORKLOADS
def test_the_container_of_a_pod(workload: Workload, tmp_path: Path) -> None:
    """The image under the user, limits, variables and mounts of the manifest."""
    docker("compose", "build", "serve", timeout=900)
    settings = {**workload.settings, "drain_seconds": "0"}
    if "model_name" in settings:
        settings["model_name"] = INFERENCE_SERVICE["metadata"]["name"]
    memory = bytes_of(workload.container["resources"]["limits"]["memory"])
    artifact = write_forecaster(tmp_path / "artifact")
    container = docker(
        *("run", "--detach", "--publish", "127.0.0.1::8000", "--read-only", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--user", workload.security["runAsUser"]),
        *("--memory", memory, "--tmpfs", "/tmp:size=16m"),
        *(f"--env={PREFIX}{name.upper()}={value}" for name, value in settings.items()),
        *("--volume", f"{artifact}:{settings['models']}:ro", workload.container["image"]),
        *workload.container["args"],
    )
    try:
        url = f"http://{docker('port', container, 8000).splitlines()[0]}"
        limit = time.monotonic() + 60
        while not ready(url + workload.container["readinessProbe"]["httpGet"]["path"]):
            assert time.monotonic() < limit, docker("logs", container)
            time.sleep(0.1)
        answer = httpx.get(f"{url}/v2/models", headers=KEYED)
        assert answer.json() == {"models": [settings.get("model_name", "small-forecaster")]}
        docker("stop", "--time", workload.grace, container)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    finally:
        docker("rm", "--force", container)


def ready(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
