//! HTTP around documents: content negotiation, entity tags, compression.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
    VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

/// What a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    V2Protobuf,
    V3Protobuf,
}

impl Format {
    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::V2Protobuf => "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            Self::V3Protobuf => "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
        })
    }

    fn accepted_as(self, media_type: &str) -> bool {
        match self {
            Self::Json => matches!(media_type, "application/json" | "application/*" | "*/*"),
            Self::V2Protobuf => matches!(
                media_type,
                "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
                    | "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
            ),
            Self::V3Protobuf => matches!(
                media_type,
                "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
                    | "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
            ),
        }
    }
}

/// The first format that the client accepts; JSON when it does not say.
pub(super) fn choose(headers: &HeaderMap, offered: &[Format]) -> Option<Format> {
    let mut accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if accepts.peek().is_none() {
        return Some(Format::Json);
    }
    let media_types = accepts.flat_map(|accept| accept.split(','));
    let mut names = media_types.filter_map(|media_type| media_type.split(';').next()).map(str::trim);
    names.find_map(|name| {
        let name = if name.is_empty() { "*/*" } else { name };
        offered.iter().copied().find(|format| format.accepted_as(name))
    })
}

pub(super) fn not_modified(headers: &HeaderMap, hash: &str) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|tags| tags.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == hash
    })
}

fn quoted(hash: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// A response without a body.
pub(super) fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// 304.
pub(super) fn unchanged(hash: &str) -> Response<Bytes> {
    let mut response = status(StatusCode::NOT_MODIFIED);
    response.headers_mut().insert(ETAG, quoted(hash));
    response
}

/// 301, to the document that is current.
pub(super) fn moved(url: &str) -> Response<Bytes> {
    let mut response = status(StatusCode::MOVED_PERMANENTLY);
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(LOCATION, url);
    }
    response
}

/// 200 with a small body.
pub(super) fn plain(body: Bytes, format: Format) -> Response<Bytes> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, format.content_type());
    response
}

/// A document whose URL names its hash never changes.
pub(super) fn make_immutable(response: &mut Response<Bytes>) {
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
}

/// A finished document, compressed.
#[derive(Debug)]
pub(super) struct Document {
    gzip: Bytes,
    plain_len: usize,
}

impl Document {
    pub(super) fn compress(plain: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::default());
        // Writing to a vector cannot fail; if it did, the document would be empty and clients would say so.
        let gzip = encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default();
        Self { gzip: gzip.into(), plain_len: plain.len() }
    }

    pub(super) fn respond(&self, format: Format, hash: &str, headers: &HeaderMap) -> Response<Bytes> {
        let gzip = headers
            .get_all(ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"));
        let mut response = plain(if gzip { self.gzip.clone() } else { self.inflate() }, format);
        let answer = response.headers_mut();
        answer.insert(ETAG, quoted(hash));
        answer.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if gzip {
            answer.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    fn inflate(&self) -> Bytes {
        let mut plain = Vec::with_capacity(self.plain_len);
        match GzDecoder::new(&*self.gzip).read_to_end(&mut plain) {
            Ok(_) => plain.into(),
            Err(error) => {
                tracing::error!(%error, "inflating an OpenAPI document failed");
                Bytes::new()
            }
        }
    }
}
