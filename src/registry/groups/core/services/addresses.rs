//! Checks of the addresses and the address families of Services.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{headless, kind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, known};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const ONCE: &str = "may not change once set";

/// Checks one Service.
pub(super) fn validate(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    if kind(service) != "ExternalName" {
        own(service, spec, at, errors);
    }
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        let at = at.child("externalIPs").index(i);
        let messages = names::is_ip(ip);
        if messages.is_empty() {
            not_special(ip, &at, errors);
        }
        each(messages, ip, &at, errors);
    }
}

/// Checks that an address can be that of a peer on some network.
pub fn not_special(text: &str, at: &Path, errors: &mut FieldErrors) {
    let Ok(ip) = text.parse::<IpAddr>() else { return };
    let (local, local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    let message = if ip.is_unspecified() {
        format!("may not be unspecified ({text})")
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()
    } else if local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()
    } else if local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()
    } else {
        return;
    };
    errors.push(FieldError::invalid(at, text, message));
}

fn own(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let at_ips = at.child("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match (spec.cluster_ip.as_deref().unwrap_or_default(), ips.first()) {
        ("", Some(_)) => {
            let message = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(&at_ips, ips, message));
        }
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(&at_ips, "")),
        (single, Some(first)) if single != first => {
            errors.push(FieldError::invalid(&at_ips, ips, "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    for (i, family) in families.iter().enumerate() {
        let at = at.child("ipFamilies").index(i);
        known(Some(family), &FAMILIES, &at, errors);
        if families[..i].contains(family) {
            errors.push(FieldError::duplicate(&at, family));
        }
    }
    known(spec.ip_family_policy.as_deref(), &FAMILY_POLICIES, &at.child("ipFamilyPolicy"), errors);
    if !parse(ips, &at_ips, errors) {
        return;
    }
    let is_v6 = |ip: &str| ip.contains(':');
    if ips.len() > 1 && !(ips.len() == 2 && is_v6(&ips[0]) != is_v6(&ips[1])) {
        let message = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(&at_ips, ips, message));
    }
    if headless(service) {
        return;
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate() {
        if FAMILIES.contains(&family.as_str()) && is_v6(ip) != (family == "IPv6") {
            let message = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(FieldError::invalid(&at_ips.index(i), ip, message));
        }
    }
}

/// Whether all addresses are such, or the one that says that there is none.
fn parse(ips: &[String], at: &Path, errors: &mut FieldErrors) -> bool {
    let mut good = true;
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                good = false;
                errors.push(FieldError::invalid(at, ips, "'None' must be the first and only value"));
            }
            continue;
        }
        let messages = names::is_ip(ip);
        good &= messages.is_empty();
        each(messages, ip, &at.index(i), errors);
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(at, ips, "may only hold up to 2 values"));
    }
    good
}

/// Checks a change: what was given stays; a second address or family may come and go.
pub(super) fn update(service: &Service, old: &Service, errors: &mut FieldErrors) {
    if kind(service) == "ExternalName" || kind(old) == "ExternalName" {
        return;
    }
    let none = ServiceSpec::default();
    let (spec, was) = (service.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let both_headless = headless(service) && headless(old);
    if !both_headless {
        let (now, before) = (spec.cluster_ips.as_deref(), was.cluster_ips.as_deref());
        second(spec, ("clusterIPs", "clusterIP"), now, before, errors);
    }
    if !headless(service) && !headless(old) {
        let (now, before) = (spec.ip_families.as_deref(), was.ip_families.as_deref());
        second(spec, ("ipFamilies", "ipFamily"), now, before, errors);
    }
}

fn second(
    spec: &ServiceSpec,
    (field, name): (&'static str, &str),
    now: Option<&[String]>,
    before: Option<&[String]>,
    errors: &mut FieldErrors,
) {
    let (now, before) = (now.unwrap_or_default(), before.unwrap_or_default());
    let at = Path::new("spec");
    let place = |i: usize| at.child(field).index(i);
    if now.len() == before.len() {
        for (i, _) in now.iter().zip(before).enumerate().filter(|(_, (now, before))| now != before) {
            // Upstream names the first family whichever has changed.
            let i = if field == "ipFamilies" { 0 } else { i };
            errors.push(FieldError::invalid(&place(i), now, ONCE));
        }
        return;
    }
    if now.is_empty() {
        errors.push(FieldError::invalid(&place(0), now, format!("primary {name} can not be unset")));
    } else if before.first().is_some_and(|first| *first != now[0]) {
        errors.push(FieldError::invalid(&place(0), now, ONCE));
    }
    if now.len() == 1 && before.len() > 1 && spec.ip_family_policy.as_deref() != Some("SingleStack") {
        let message = format!("must be set to 'SingleStack' when releasing the secondary {name}");
        errors.push(FieldError::invalid(&at.child("ipFamilyPolicy"), &spec.ip_family_policy, message));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()
    }

    fn texts(errors: &FieldErrors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_fit_each_other_and_their_families() {
        let cases = [
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]}),
                None,
            ),
            (json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv6"]}), None),
            (
                json!({"clusterIPs": ["10.0.0.1"]}),
                Some(
                    "spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: must be empty when `clusterIP` is not specified",
                ),
            ),
            (
                json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]}),
                Some("spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: first value must match `clusterIP`"),
            ),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None", "10.0.0.1"]}),
                Some(
                    "spec.clusterIPs: Invalid value: [\"None\",\"10.0.0.1\"]: 'None' must be the first and only value",
                ),
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
                Some(
                    "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
                ),
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]}),
                Some(
                    "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
                ),
            ),
            (
                json!({"clusterIP": "1.2.3", "clusterIPs": ["1.2.3"]}),
                Some(
                    "spec.clusterIPs[0]: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ),
            ),
            (json!({"ipFamilies": ["IPv4", "IPv4"]}), Some("spec.ipFamilies[1]: Duplicate value: \"IPv4\"")),
            (
                json!({"ipFamilyPolicy": "Both"}),
                Some(
                    "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
                ),
            ),
            (
                json!({"externalIPs": ["127.0.0.1"]}),
                Some(
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ),
            ),
            (
                json!({"externalIPs": ["0.0.0.0"]}),
                Some("spec.externalIPs[0]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)"),
            ),
            (
                json!({"externalIPs": ["fe80::1"]}),
                Some(
                    "spec.externalIPs[0]: Invalid value: \"fe80::1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
                ),
            ),
        ];
        for (spec, expected) in cases {
            let service = service(spec);
            let mut errors = FieldErrors::new();
            validate(&service, service.spec.as_ref().unwrap(), &Path::new("spec"), &mut errors);
            assert_eq!(texts(&errors), Vec::from_iter(expected.map(str::to_owned)));
        }
    }

    #[test]
    fn the_first_address_stays_and_the_second_comes_and_goes() {
        let of = |ips: &[&str], policy: &str| {
            service(json!({"clusterIP": ips.first(), "clusterIPs": ips, "ipFamilyPolicy": policy}))
        };
        let check = |new: &Service, old: &Service| {
            let mut errors = FieldErrors::new();
            update(new, old, &mut errors);
            texts(&errors)
        };
        let (one, two) = (of(&["10.0.0.1"], "SingleStack"), of(&["10.0.0.1", "fd00::1"], "RequireDualStack"));
        assert_eq!(check(&two, &one), Vec::<String>::new());
        assert_eq!(check(&one, &two), Vec::<String>::new());
        assert_eq!(
            check(&of(&["10.0.0.1"], "RequireDualStack"), &two),
            [
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP"
            ]
        );
        assert_eq!(
            check(&of(&["10.0.0.2"], "SingleStack"), &one),
            ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
        );
        assert_eq!(
            check(&of(&[], "SingleStack"), &one),
            ["spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset"]
        );
        let family = |family: &str| service(json!({"ipFamilies": [family]}));
        assert_eq!(
            check(&family("IPv6"), &family("IPv4")),
            ["spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set"]
        );
        let external = service(json!({"type": "ExternalName"}));
        assert_eq!(check(&external, &one), Vec::<String>::new());
    }
}
