//! Sources that are reached over the network.

use k8s_openapi::api::core::v1::{NFSVolumeSource, QuobyteVolumeSource};

use super::{all_required, disks};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, text};

const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
const PORTAL_MAX: usize = 64;
const FORMAT: &str = "must be valid format";
const NAMED_FORMAT: &str = "must be valid format starting with iqn, eui, or naa";

/// The complaint about a volume's name and a portal that are too long together.
pub const PORTAL_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is \
     specified.";

/// An export of an NFS server.
pub fn nfs(source: &NFSVolumeSource, at: &Path, errors: &mut FieldErrors) {
    all_required(&[("server", &source.server), ("path", &source.path)], at, errors);
    if !source.path.starts_with('/') {
        errors.push(FieldError::invalid(&at.child("path"), &source.path, "must be an absolute path"));
    }
}

/// A volume of a Quobyte registry.
pub fn quobyte(source: &QuobyteVolumeSource, at: &Path, errors: &mut FieldErrors) {
    let registry = at.child("registry");
    if source.registry.is_empty() {
        errors.push(FieldError::required(&registry, PAIRS));
    } else if text(&source.tenant).len() > 64 {
        let message = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(&at.child("tenant"), message));
    } else {
        for _ in source.registry.split(',').filter(|pair| !is_pair(pair)) {
            errors.push(FieldError::invalid(&registry, &source.registry, PAIRS));
        }
    }
    all_required(&[("volume", &source.volume)], at, errors);
}

fn is_pair(text: &str) -> bool {
    let Some((host, _)) = text.rsplit_once(':') else { return false };
    (host.starts_with('[') && host.ends_with(']')) || !host.contains(':')
}

/// A volume of a StorageOS cluster; the secret's parts are given where there is a secret.
pub fn storage_os(
    name: &str,
    namespace: &str,
    secret: &[(&'static str, &str)],
    at: &Path,
    errors: &mut FieldErrors,
) {
    if name.is_empty() {
        errors.push(FieldError::required(&at.child("volumeName"), ""));
    } else {
        each(names::is_dns1123_label(name), name, &at.child("volumeName"), errors);
    }
    if !namespace.is_empty() {
        each(names::is_dns1123_label(namespace), namespace, &at.child("volumeNamespace"), errors);
    }
    all_required(secret, &at.child("secretRef"), errors);
}

/// What an iSCSI source says, in a pod or in a volume.
pub struct Iscsi<'a> {
    /// Where the target is.
    pub portal: &'a str,
    /// The target's name.
    pub iqn: &'a str,
    /// The unit's number.
    pub lun: i32,
    /// Whether a login needs a secret.
    pub login: bool,
    /// The secret's name, where there is a secret.
    pub secret: Option<&'a str>,
    /// The initiator's name.
    pub initiator: Option<&'a str>,
    /// The volume that it belongs to: a pod's volume, or a PersistentVolume.
    pub volume: &'a str,
    /// Whether it is a PersistentVolume's.
    pub persistent: bool,
}

impl Iscsi<'_> {
    /// Whether the volume's name and the portal together are longer than an initiator may say.
    pub fn is_too_long(&self) -> bool {
        self.initiator.is_some() && self.volume.len() + 1 + self.portal.len() > PORTAL_MAX
    }
}

/// A unit of an iSCSI target. A pod's name of the volume is checked with the volume's.
pub fn iscsi(source: &Iscsi<'_>, at: &Path, errors: &mut FieldErrors) {
    all_required(&[("targetPortal", source.portal)], at, errors);
    if source.persistent && source.is_too_long() {
        errors.push(FieldError::invalid(&at.child("targetportal"), source.portal, PORTAL_TOO_LONG));
    }
    let named = if source.persistent { FORMAT } else { NAMED_FORMAT };
    if source.iqn.is_empty() {
        errors.push(FieldError::required(&at.child("iqn"), ""));
    } else {
        initiator(source.iqn, named, &at.child("iqn"), errors);
    }
    disks::unit(source.lun, at, errors);
    if source.login && source.secret.is_none() {
        errors.push(FieldError::required(&at.child("secretRef"), ""));
    }
    if source.persistent && source.secret.is_some_and(str::is_empty) {
        errors.push(FieldError::required(&at.child("secretRef").child("name"), ""));
    }
    if let Some(name) = source.initiator {
        initiator(name, named, &at.child("initiatorname"), errors);
    }
}

/// The name of a target or an initiator: `iqn.`, `eui.` or `naa.` and what belongs to it.
fn initiator(name: &str, unnamed: &'static str, at: &Path, errors: &mut FieldErrors) {
    let fixed = |rest: &str, length: usize| {
        // The separator may be any character, as upstream's expressions have it.
        rest.chars().count() == length + 1 && rest.chars().skip(1).all(|c| c.is_ascii_alphanumeric())
    };
    let fine = match name.get(..3) {
        Some("iqn") => qualified(name),
        Some("eui") => fixed(&name[3..], 16),
        Some("naa") => fixed(&name[3..], 32),
        _ => {
            errors.push(FieldError::invalid(at, name, unnamed));
            return;
        }
    };
    if !fine {
        errors.push(FieldError::invalid(at, name, FORMAT));
    }
}

/// `iqn.2001-04.com.example:storage`.
fn qualified(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let bytes = rest.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    if !(digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) && bytes.get(7) == Some(&b'.')) {
        return false;
    }
    let Some((authority, unit)) = rest.get(8..).and_then(|rest| rest.split_once(':')) else { return false };
    let authority_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let unit_fine = |c: char| !matches!(c, ',' | ';' | '*' | '&' | '$' | '|') && !c.is_ascii_whitespace();
    !authority.is_empty()
        && authority.chars().all(authority_fine)
        && !unit.is_empty()
        && unit.chars().all(unit_fine)
}
