//! Discovery documents against the recorded ones of upstream are compared in the API tests; here their order.

use super::*;

#[test]
fn versions_are_ordered_by_stability_then_number() {
    let mut versions = vec!["v1alpha2", "v1beta1", "v1", "v2", "v1beta2", "v10", "v2alpha1"];
    versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
    assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "v1alpha2"]);
}

#[test]
fn core_comes_first_and_strangers_last() {
    let mut groups = vec!["example.org", "batch", "", "apps"];
    groups.sort_by_key(|group| (position(group), *group));
    assert_eq!(groups, ["", "apps", "batch", "example.org"]);
}
