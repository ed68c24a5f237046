"""What a user of the official Python client does first, against the server of KUBECONFIG."""

import threading

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException

config.load_kube_config()
core, apps, rbac = client.CoreV1Api(), client.AppsV1Api(), client.RbacAuthorizationV1Api()
assert client.VersionApi().get_code().minor == "36"
assert any(group.name == "apps" for group in client.ApisApi().get_api_versions().groups)
assert "pods" in {resource.name for resource in core.get_api_resources().resources}

# Objects are made, read, changed and deleted.
meta = client.V1ObjectMeta(name="settings", labels={"app": "web"})
made = core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=meta, data={"a": "b"}))
assert made.metadata.uid and made.data == {"a": "b"}
made.data["a"] = "c"
assert core.replace_namespaced_config_map("settings", "default", made).data["a"] == "c"
try:
    core.replace_namespaced_config_map("settings", "default", made)
    raise AssertionError("an old version was accepted")
except ApiException as error:
    assert error.status == 409, error
patched = core.patch_namespaced_config_map("settings", "default", {"data": {"d": "e"}})
assert patched.data == {"a": "c", "d": "e"}, patched.data
patched = core.patch_namespaced_config_map("settings", "default", [{"op": "remove", "path": "/data/d"}])
assert patched.data == {"a": "c"}, patched.data
assert core.read_namespaced_config_map("settings", "default").data == {"a": "c"}

# Lists come in pages and by selectors.
for number in range(5):
    name = client.V1ObjectMeta(name=f"page-{number}", labels={"page": "yes"})
    core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=name))
page = core.list_namespaced_config_map("default", label_selector="page=yes", limit=2)
names = [item.metadata.name for item in page.items]
while page.metadata._continue:
    page = core.list_namespaced_config_map("default", label_selector="page=yes", limit=2, _continue=page.metadata._continue)
    names += [item.metadata.name for item in page.items]
assert names == [f"page-{number}" for number in range(5)], names

# A watch sees what happens.
seen = []
watcher = watch.Watch()
version = core.list_namespaced_config_map("default").metadata.resource_version


def collect():
    for event in watcher.stream(core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=30):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watcher.stop()


thread = threading.Thread(target=collect)
thread.start()
core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="watched")))
core.delete_namespaced_config_map("watched", "default")
thread.join(60)
assert seen == [("ADDED", "watched"), ("DELETED", "watched")], seen
assert core.delete_collection_namespaced_config_map("default", label_selector="page=yes").kind
assert not core.list_namespaced_config_map("default", label_selector="page=yes").items

# Workloads, scale and status.
deployment = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "example/web:1"}]}}},
}
utils.create_from_dict(client.ApiClient(), deployment)
scale = apps.read_namespaced_deployment_scale("web", "default")
scale.spec.replicas = 3
assert apps.replace_namespaced_deployment_scale("web", "default", scale).spec.replicas == 3
assert apps.read_namespaced_deployment("web", "default").spec.replicas == 3
status = apps.patch_namespaced_deployment_status("web", "default", {"status": {"observedGeneration": 7}})
assert status.status.observed_generation == 7
apps.delete_namespaced_deployment("web", "default", propagation_policy="Background")
assert not apps.list_namespaced_deployment("default").items

# The dynamic client reads discovery, and applies.
dyn = dynamic.DynamicClient(client.ApiClient())
secrets = dyn.resources.get(api_version="v1", kind="Secret")
body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "applied"}, "stringData": {"a": "b"}}
applied = dyn.server_side_apply(secrets, body=body, name="applied", namespace="default", field_manager="python")
assert applied.data.a == "Yg==", applied
assert [entry.manager for entry in applied.metadata.managedFields] == ["python"], applied.metadata
assert secrets.get(name="applied", namespace="default").metadata.name == "applied"
secrets.delete(name="applied", namespace="default")

# Access: a role, and questions about it.
rbac.create_namespaced_role("default", client.V1Role(
    metadata=client.V1ObjectMeta(name="reader"),
    rules=[client.V1PolicyRule(api_groups=[""], resources=["pods"], verbs=["get"])]))
review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
    resource_attributes=client.V1ResourceAttributes(verb="delete", resource="nodes")))
assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed
core.create_namespaced_service_account("default", client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="robot")))
token = core.create_namespaced_service_account_token("robot", "default", client.AuthenticationV1TokenRequest(
    spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)))
assert token.status.token.count(".") == 2

# Errors are what clients expect.
for call, code, reason in [
    (lambda: core.read_namespaced_pod("none", "default"), 404, "NotFound"),
    (lambda: core.create_namespace({"metadata": {"name": "default"}}), 409, "AlreadyExists"),
    (lambda: core.create_namespaced_config_map("default", {"metadata": {"name": "Not A Name"}}), 422, "Unprocessable Entity"),
]:
    try:
        call()
        raise AssertionError(f"no {code}")
    except ApiException as error:
        assert error.status == code, error
print("python client: done")
