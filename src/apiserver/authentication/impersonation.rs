//! Acting as somebody else: the `Impersonate-*` headers, each of which needs a permission of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;

use super::service_account::{groups_of, parse_user_name};
use super::{ANONYMOUS, UNAUTHENTICATED, add_authenticated};
use crate::api::error::ApiError;
use crate::apiserver::authorization::{Attributes, Authorizer, ResourceAttributes};
use crate::registry::UserInfo;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user that a request acts as: `requester`, or whom the headers name if `requester` may impersonate them.
pub fn effective_user(
    authorizer: &Authorizer,
    requester: Arc<UserInfo>,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, ApiError> {
    let Some(asked) = read_headers(headers)? else { return Ok(requester) };
    for attributes in required(&asked) {
        authorizer.check(&requester, &attributes)?;
    }
    Ok(Arc::new(complete(asked)))
}

/// The user that the headers name, as they stand.
fn read_headers(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            let key = crate::apiserver::request_info::percent_decode(key, false).to_lowercase();
            extra.entry(key).or_default().push(value.to_owned());
        }
    }
    let groups: Vec<_> =
        headers.get_all(GROUP).iter().filter_map(|g| g.to_str().ok()).map(str::to_owned).collect();
    let (name, uid) = (text(USER), text(UID));
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(ApiError::internal(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    }
    Ok(Some(UserInfo { name, uid, groups, extra }))
}

/// The permissions that acting as `asked` takes.
fn required(asked: &UserInfo) -> Vec<Attributes<'_>> {
    fn attributes<'a>(resource: ResourceAttributes<'a>) -> Attributes<'a> {
        Attributes { verb: "impersonate", resource: Some(resource), ..Attributes::default() }
    }
    let mut needed = vec![attributes(match parse_user_name(&asked.name) {
        Some((namespace, name)) => ResourceAttributes {
            resource: "serviceaccounts",
            namespace,
            name,
            version: "v1",
            ..Default::default()
        },
        None => {
            ResourceAttributes { resource: "users", name: &asked.name, version: "v1", ..Default::default() }
        }
    })];
    needed.extend(asked.groups.iter().map(|group| {
        attributes(ResourceAttributes {
            resource: "groups",
            name: group,
            version: "v1",
            ..Default::default()
        })
    }));
    let authentication =
        ResourceAttributes { group: "authentication.k8s.io", version: "v1", ..Default::default() };
    if !asked.uid.is_empty() {
        needed.push(attributes(ResourceAttributes { resource: "uids", name: &asked.uid, ..authentication }));
    }
    for (key, values) in &asked.extra {
        needed.extend(values.iter().map(|value| {
            attributes(ResourceAttributes {
                resource: "userextras",
                subresource: key,
                name: value,
                ..authentication
            })
        }));
    }
    needed
}

/// Adds the groups that come with being authenticated, or a service account.
fn complete(mut asked: UserInfo) -> UserInfo {
    if asked.groups.is_empty()
        && let Some((namespace, _)) = parse_user_name(&asked.name)
    {
        asked.groups = groups_of(namespace);
    }
    if asked.name == ANONYMOUS {
        if !asked.groups.iter().any(|group| group == UNAUTHENTICATED) {
            asked.groups.push(UNAUTHENTICATED.to_owned());
        }
    } else {
        add_authenticated(&mut asked.groups);
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn permissions(pairs: &[(&str, &str)]) -> Vec<String> {
        let asked = read_headers(&headers(pairs)).unwrap().unwrap();
        required(&asked)
            .iter()
            .map(|a| {
                let r = a.resource.unwrap();
                format!("{} {}/{}/{} {} {}", a.verb, r.group, r.resource, r.subresource, r.namespace, r.name)
            })
            .collect()
    }

    #[test]
    fn every_header_takes_its_own_permission() {
        assert_eq!(
            permissions(&[
                (USER, "jane"),
                (GROUP, "a"),
                (GROUP, "b"),
                (UID, "7"),
                ("impersonate-extra-acme.org%2Fteam", "x"),
            ]),
            [
                "impersonate /users/  jane",
                "impersonate /groups/  a",
                "impersonate /groups/  b",
                "impersonate authentication.k8s.io/uids/  7",
                "impersonate authentication.k8s.io/userextras/acme.org/team  x",
            ]
        );
        assert_eq!(
            permissions(&[(USER, "system:serviceaccount:ns:sa")]),
            ["impersonate /serviceaccounts/ ns sa"]
        );
    }

    #[test]
    fn groups_follow_from_the_user_unless_named() {
        let user = |pairs: &[(&str, &str)]| complete(read_headers(&headers(pairs)).unwrap().unwrap());
        assert_eq!(user(&[(USER, "jane")]).groups, ["system:authenticated"]);
        assert_eq!(user(&[(USER, "system:anonymous")]).groups, ["system:unauthenticated"]);
        assert_eq!(
            user(&[(USER, "system:serviceaccount:ns:sa")]).groups,
            ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]
        );
        assert_eq!(user(&[(USER, "jane"), (GROUP, "devs")]).groups, ["devs", "system:authenticated"]);
    }

    #[test]
    fn groups_without_a_user_are_an_error() {
        assert!(read_headers(&headers(&[(GROUP, "system:masters")])).is_err());
        assert!(read_headers(&headers(&[("x-other", "1")])).unwrap().is_none());
    }
}
