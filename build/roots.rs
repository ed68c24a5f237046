//! The kinds whose schemas are generated: what v1.36 serves as stable, with what requests and answers are made of.

use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, certificates,
    coordination, core, discovery, events, flowcontrol, networking, node, policy, rbac, resource, scheduling,
    storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use schemars::{JsonSchema, SchemaGenerator};

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) -> String {
    let _reference = generator.subschema_for::<T>();
    T::schema_name().into_owned()
}

macro_rules! add_all {
    ($generator:ident, $($group:ident :: $version:ident { $($kind:ident),* $(,)? })*) => {
        vec![$($(add::<$group::$version::$kind>($generator),)*)*]
    };
}

/// Adds every root with all that it reaches, and returns the names of the definitions of lists of kinds.
pub fn register(generator: &mut SchemaGenerator) -> Vec<String> {
    add_without_list(generator);
    let kinds = add_all!(generator,
        admissionregistration::v1 {
            MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
            ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
        }
        apiextensions::v1 { CustomResourceDefinition }
        apiregistration::v1 { APIService }
        apps::v1 { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet }
        autoscaling::v1 { HorizontalPodAutoscaler }
        autoscaling::v2 { HorizontalPodAutoscaler }
        batch::v1 { CronJob, Job }
        certificates::v1 { CertificateSigningRequest }
        coordination::v1 { Lease }
        core::v1 {
            ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
            PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service,
            ServiceAccount,
        }
        discovery::v1 { EndpointSlice }
        events::v1 { Event }
        flowcontrol::v1 { FlowSchema, PriorityLevelConfiguration }
        networking::v1 { IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR }
        node::v1 { RuntimeClass }
        policy::v1 { PodDisruptionBudget }
        rbac::v1 { ClusterRole, ClusterRoleBinding, Role, RoleBinding }
        resource::v1 { DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice }
        scheduling::v1 { PriorityClass }
        storage::v1 {
            CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
        }
    );
    kinds.into_iter().map(|kind| format!("{kind}List")).collect()
}

fn add_without_list(generator: &mut SchemaGenerator) {
    let _names = add_all!(generator,
        authentication::v1 { SelfSubjectReview, TokenRequest, TokenReview }
        authorization::v1 {
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        }
        autoscaling::v1 { Scale }
        core::v1 { Binding }
        meta::v1 {
            APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, ObjectMeta, Patch, Status,
        }
        policy::v1 { Eviction }
    );
    let _name = add::<meta::v1::WatchEvent<()>>(generator);
}
