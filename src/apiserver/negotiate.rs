//! Content negotiation: which format and shape the answer takes, and which format the body is in.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::api::error::ApiError;
use crate::api::protobuf;
pub use crate::registry::BodyFormat as Format;
use crate::registry::PatchKind;

/// Media types that objects are written in.
const OFFERED: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];
/// Those of objects whose kind is known at run time only.
const WITHOUT_PROTOBUF: [&str; 2] = ["application/json", "application/yaml"];

/// The shape asked for with `as=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Objects as they are.
    #[default]
    Object,
    /// `meta.k8s.io/v1` `Table`.
    Table,
    /// `meta.k8s.io/v1` `PartialObjectMetadata` or its list.
    Metadata,
    /// `apidiscovery.k8s.io` aggregated discovery, of the version named.
    AggregatedDiscovery(&'static str),
}

/// A media range of an `Accept` header.
#[derive(Debug, PartialEq)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

fn parse_ranges(header: &str) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = header
        .split(',')
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let (kind, subtype) = match parts.next()?.split_once('/') {
                Some((kind, subtype)) => (kind, subtype),
                None => return None,
            };
            let mut range = Range { kind, subtype, params: Vec::new(), quality: 1.0 };
            for (key, value) in parts.filter_map(|param| param.split_once('=')) {
                let (key, value) = (key.trim(), value.trim().trim_matches('"'));
                if key == "q" {
                    range.quality = value.parse().unwrap_or(1.0);
                } else {
                    range.params.push((key, value));
                }
            }
            (range.quality > 0.0).then_some(range)
        })
        .collect();
    // Best quality first, then the more specific range; the order of the header decides the rest.
    ranges.sort_by(|a, b| {
        let specific = |r: &Range<'_>| u8::from(r.kind != "*") + u8::from(r.subtype != "*");
        b.quality.total_cmp(&a.quality).then(specific(b).cmp(&specific(a)))
    });
    ranges
}

impl Range<'_> {
    fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    fn format(&self) -> Option<Format> {
        match (self.kind, self.subtype) {
            ("*" | "application", "*") | ("application", "json") => Some(Format::Json),
            ("application", "yaml") => Some(Format::Yaml),
            ("application", "vnd.kubernetes.protobuf") => Some(Format::Protobuf),
            _ => None,
        }
    }

    /// `None` when the range asks for a shape that is not offered.
    fn shape(&self) -> Option<Shape> {
        let gv = (self.param("g"), self.param("v"));
        match self.param("as") {
            "" => Some(Shape::Object),
            "Table" if gv == ("meta.k8s.io", "v1") => Some(Shape::Table),
            "PartialObjectMetadata" | "PartialObjectMetadataList" if gv == ("meta.k8s.io", "v1") => {
                Some(Shape::Metadata)
            }
            "APIGroupDiscoveryList" if gv.0 == "apidiscovery.k8s.io" => match gv.1 {
                "v2" => Some(Shape::AggregatedDiscovery("v2")),
                "v2beta1" => Some(Shape::AggregatedDiscovery("v2beta1")),
                _ => None,
            },
            _ => None,
        }
    }
}

/// What an endpoint can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Objects of a resource: any format, as table or metadata too.
    Objects,
    /// Objects of a kind that has no protobuf: their metadata has.
    CustomObjects,
    /// Discovery documents: any format, also aggregated.
    Discovery,
    /// Documents as they are, in any format.
    Plain,
}

impl Offer {
    fn includes(self, format: Format, shape: &Shape) -> bool {
        let protobuf = format == Format::Protobuf;
        match shape {
            Shape::Object => !(protobuf && self == Self::CustomObjects),
            // Tables have no protobuf.
            Shape::Table => matches!(self, Self::Objects | Self::CustomObjects) && !protobuf,
            Shape::Metadata => matches!(self, Self::Objects | Self::CustomObjects),
            Shape::AggregatedDiscovery(_) => self == Self::Discovery,
        }
    }

    fn media_types(self) -> &'static [&'static str] {
        if self == Self::CustomObjects { &WITHOUT_PROTOBUF } else { &OFFERED }
    }
}

/// Chooses format and shape by the `Accept` header; none at all means JSON.
pub fn accept(headers: &HeaderMap, offer: Offer) -> Result<(Format, Shape), ApiError> {
    let header =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    choose(&header, offer)
}

fn choose(header: &str, offer: Offer) -> Result<(Format, Shape), ApiError> {
    if header.trim().is_empty() {
        return Ok((Format::Json, Shape::Object));
    }
    parse_ranges(header)
        .iter()
        .find_map(|range| {
            let (format, shape) = (range.format()?, range.shape()?);
            offer.includes(format, &shape).then_some((format, shape))
        })
        .ok_or_else(|| ApiError::not_acceptable(offer.media_types()))
}

/// The format of an error: as the client's `Accept` wants it if there is such, else JSON.
pub fn error_format(accept: Option<&HeaderValue>) -> Format {
    let header = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
    choose(header, Offer::Plain).map_or(Format::Json, |(format, _)| format)
}

/// Whether a request speaks of protobuf, in its body or for its answer.
pub fn mentions_protobuf(headers: &HeaderMap) -> bool {
    let mentions = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("protobuf"));
    headers.get_all(ACCEPT).iter().chain(headers.get_all(CONTENT_TYPE)).any(mentions)
}

/// The media type of the body, without parameters; JSON when the client names none.
fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The format of an object in a request body, of which `offer` tells what may come.
pub fn body_format(headers: &HeaderMap, offer: Offer) -> Result<Format, ApiError> {
    match content_type(headers) {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        protobuf::MEDIA_TYPE if offer != Offer::CustomObjects => Ok(Format::Protobuf),
        _ => Err(ApiError::unsupported_media_type(offer.media_types())),
    }
}

/// The kind of a patch by its content type.
pub fn patch_type(headers: &HeaderMap) -> Result<PatchKind, ApiError> {
    const ACCEPTED: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    match content_type(headers) {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" | "application/apply-patch+json" => Ok(PatchKind::Apply),
        _ => Err(ApiError::unsupported_media_type(&ACCEPTED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn accept_chooses_the_best_offer() {
        use Format::{Json, Protobuf, Yaml};
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
            application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        let both = "application/vnd.kubernetes.protobuf,application/json";
        let proto_table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json";
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let discovery =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let cases = [
            ("", Offer::Objects, Some((Json, Shape::Object))),
            ("*/*", Offer::Objects, Some((Json, Shape::Object))),
            ("application/json, */*", Offer::Plain, Some((Json, Shape::Object))),
            ("application/json;stream=watch", Offer::Objects, Some((Json, Shape::Object))),
            ("application/yaml", Offer::Objects, Some((Yaml, Shape::Object))),
            ("application/yaml;q=0.5, application/json", Offer::Objects, Some((Json, Shape::Object))),
            ("application/json;q=0.5, application/yaml;q=0.9", Offer::Objects, Some((Yaml, Shape::Object))),
            (both, Offer::Objects, Some((Protobuf, Shape::Object))),
            (both, Offer::Discovery, Some((Protobuf, Shape::Object))),
            (both, Offer::CustomObjects, Some((Json, Shape::Object))),
            (
                "application/vnd.kubernetes.protobuf;stream=watch",
                Offer::Objects,
                Some((Protobuf, Shape::Object)),
            ),
            ("application/vnd.kubernetes.protobuf", Offer::CustomObjects, None),
            (metadata, Offer::Objects, Some((Protobuf, Shape::Metadata))),
            (metadata, Offer::CustomObjects, Some((Protobuf, Shape::Metadata))),
            (proto_table, Offer::Objects, Some((Json, Shape::Object))),
            ("text/html", Offer::Objects, None),
            ("application/json;q=0", Offer::Objects, None),
            (table, Offer::Objects, Some((Json, Shape::Table))),
            (table, Offer::Plain, Some((Json, Shape::Object))),
            ("application/json;as=Table;v=v9;g=meta.k8s.io", Offer::Objects, None),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                Offer::Objects,
                Some((Json, Shape::Metadata)),
            ),
            (discovery, Offer::Discovery, Some((Json, Shape::AggregatedDiscovery("v2")))),
            (discovery, Offer::Objects, Some((Json, Shape::Object))),
        ];
        for (header, offer, expected) in cases {
            let result = accept(&headers(ACCEPT, header), offer);
            match expected {
                Some(expected) => assert_eq!(result.unwrap(), expected, "{header}"),
                None => assert_eq!(result.unwrap_err().code(), 406, "{header}"),
            }
        }
    }

    #[test]
    fn content_types_are_checked() {
        let of = |value: &str| headers(CONTENT_TYPE, value);
        let objects = |headers: &HeaderMap| body_format(headers, Offer::Objects);
        assert_eq!(objects(&HeaderMap::new()).unwrap(), Format::Json);
        assert_eq!(objects(&of("application/json; charset=utf-8")).unwrap(), Format::Json);
        assert_eq!(objects(&of("application/yaml")).unwrap(), Format::Yaml);
        assert_eq!(objects(&of(protobuf::MEDIA_TYPE)).unwrap(), Format::Protobuf);
        assert_eq!(body_format(&of(protobuf::MEDIA_TYPE), Offer::CustomObjects).unwrap_err().code(), 415);
        assert_eq!(objects(&of("text/plain")).unwrap_err().code(), 415);
        assert_eq!(patch_type(&of("application/apply-patch+yaml")).unwrap(), PatchKind::Apply);
        assert_eq!(patch_type(&of("application/strategic-merge-patch+json")).unwrap(), PatchKind::Strategic);
        assert_eq!(patch_type(&of("application/json")).unwrap_err().code(), 415);
    }
}
