//! Discovery documents against the recorded ones of upstream are compared in the API tests; here their order.

use super::*;

#[test]
fn versions_are_ordered_by_stability_then_number() {
    let mut versions = vec!["v1alpha2", "v1beta1", "v1", "v2", "v1beta2", "v10", "v2alpha1"];
    versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
    assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "v1alpha2"]);
}

#[test]
fn groups_are_ordered_by_priority_and_upstreams_list() {
    let own = |group: &str| rank(group, &[VersionRows { name: "v1".into(), rows: Vec::new(), remote: None }]);
    let remote = |group: &str, priority: i32| {
        let remote = RemoteVersion {
            group: group.into(),
            version: "v1".into(),
            priority: (priority, 1),
            discovery: serde_json::Value::Null,
            openapi_v3: None,
            openapi_v2: None,
        };
        rank(group, &[VersionRows { name: "v1".into(), rows: Vec::new(), remote: Some(Arc::new(remote)) }])
    };
    let mut ranks = vec![own("example.org"), own("batch"), remote("low.example", 100), own(""), own("apps")];
    ranks.extend([
        remote("high.example", 17_450),
        own("flowcontrol.apiserver.k8s.io"),
        own("resource.k8s.io"),
    ]);
    ranks.sort();
    let names: Vec<_> = ranks.into_iter().map(|(_, _, name)| name).collect();
    let last = ["resource.k8s.io", "flowcontrol.apiserver.k8s.io", "example.org", "low.example"];
    assert_eq!(names, [["", "apps", "high.example", "batch"], last].concat());
}
