//! Answers: `Status` bodies, JSON, YAML and protobuf, pretty-printing and compression.

use std::io::Write as _;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::request_info::RequestInfo;
use crate::api::error::ApiError;
use crate::api::protobuf::{self, EncodeError};
use crate::registry::BodyFormat;

/// Answers larger than this are compressed for clients that accept it, as upstream does.
const COMPRESS_ABOVE: usize = 128 * 1024;
/// How much is compressed at a time, so that a large list does not hold up other requests of the thread.
const COMPRESS_CHUNK: usize = 64 * 1024;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How one client wants its answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rendering {
    /// JSON, YAML or protobuf.
    pub format: BodyFormat,
    /// Indented JSON.
    pub pretty: bool,
    /// Compressed when large.
    pub gzip: bool,
}

impl Rendering {
    /// Reads query and headers; `format` is the outcome of the negotiation.
    pub fn new(format: BodyFormat, info: &RequestInfo, headers: &HeaderMap) -> Self {
        let pretty = match info.param("pretty") {
            "" => is_for_eyes(headers),
            _ => info.flag("pretty"),
        };
        let gzip = headers
            .get_all(ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|coding| coding.split(';').next().unwrap_or_default().trim() == "gzip");
        Self { format, pretty, gzip }
    }

    /// The answer with a JSON document as its body, in the client's format.
    pub fn respond(&self, code: u16, json: Bytes) -> Response<Body> {
        let (content_type, bytes) = match self.format {
            BodyFormat::Json if self.pretty => (JSON, Bytes::from(indent(&json))),
            BodyFormat::Json => (JSON, json),
            BodyFormat::Yaml => match to_yaml(&json) {
                Some(yaml) => (HeaderValue::from_static("application/yaml"), Bytes::from(yaml)),
                None => (JSON, json),
            },
            // What has no protobuf, such as `/version`, is JSON for who asks for protobuf too.
            BodyFormat::Protobuf => match protobuf::encode(&json) {
                Ok(bytes) => (HeaderValue::from_static(protobuf::MEDIA_TYPE), Bytes::from(bytes)),
                Err(EncodeError::Unknown { .. }) => (JSON, json),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "an object could not be written as protobuf");
                    (JSON, json)
                }
            },
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        if bytes.len() > COMPRESS_ABOVE {
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        *response.body_mut() = if self.gzip && bytes.len() > COMPRESS_ABOVE {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            compress(bytes)
        } else {
            Body::from(bytes)
        };
        response
    }

    /// The answer to a request that failed.
    pub fn error(&self, error: &ApiError) -> Response<Body> {
        let body = serde_json::to_vec(error.status()).unwrap_or_default();
        let mut response = self.respond(error.code(), Bytes::from(body));
        if let Some(seconds) = error.retry_after_seconds() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A text answer, as the health checks give.
pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Whether a person looks at the answer: browsers and the usual command-line fetchers get indented JSON.
fn is_for_eyes(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

/// Indents a JSON document by two spaces without parsing it; what is inside strings stays as it is.
fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                if let Some(close) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                newline(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            byte if byte.is_ascii_whitespace() => {}
            byte => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out.push(b'\n');
    out
}

fn to_yaml(json: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    serde_saphyr::to_string(&value).ok()
}

/// The body of a large answer, compressed piece by piece as the client reads it.
fn compress(bytes: Bytes) -> Body {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let chunks = stream::try_unfold((bytes, Some(encoder)), |(mut rest, encoder)| async move {
        let Some(mut encoder) = encoder else { return Ok::<_, std::io::Error>(None) };
        let mut out = BytesMut::new();
        while out.is_empty() && !rest.is_empty() {
            let chunk = rest.split_to(COMPRESS_CHUNK.min(rest.len()));
            encoder.write_all(&chunk)?;
            out.extend_from_slice(encoder.get_ref());
            encoder.get_mut().clear();
        }
        if out.is_empty() {
            return Ok(Some((Bytes::from(encoder.finish()?), (rest, None))));
        }
        Ok(Some((out.freeze(), (rest, Some(encoder)))))
    });
    Body::from_stream(chunks)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt;

    use super::*;

    async fn bytes_of(response: Response<Body>) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[test]
    fn indentation_is_that_of_go() {
        let cases = [
            (r#"{}"#, "{}\n"),
            (r#"{"a":[],"b":{}}"#, "{\n  \"a\": [],\n  \"b\": {}\n}\n"),
            (r#"{"a":[1,{"b":null}]}"#, "{\n  \"a\": [\n    1,\n    {\n      \"b\": null\n    }\n  ]\n}\n"),
            (r#"{"a":"{[:,]}\"\\"}"#, "{\n  \"a\": \"{[:,]}\\\"\\\\\"\n}\n"),
            ("{ \"a\" : [ ] }\n", "{\n  \"a\": []\n}\n"),
        ];
        for (input, expected) in cases {
            assert_eq!(String::from_utf8(indent(input.as_bytes())).unwrap(), expected, "{input}");
        }
    }

    #[tokio::test]
    async fn large_answers_are_compressed_and_small_ones_are_not() {
        let rendering = Rendering { gzip: true, ..Rendering::default() };
        let small = rendering.respond(200, Bytes::from_static(b"{}"));
        assert!(small.headers().get(CONTENT_ENCODING).is_none());
        let json: String = format!("[{}1]", "12345,".repeat(100_000));
        let large = rendering.respond(200, Bytes::from(json.clone()));
        assert_eq!(large.headers()[CONTENT_ENCODING], "gzip");
        let compressed = bytes_of(large).await;
        assert!(compressed.len() < json.len() / 10);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, json);
    }

    #[tokio::test]
    async fn errors_are_status_objects_with_their_code() {
        let response = Rendering::default().error(&ApiError::too_many_requests("slow down", 3));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        let status: serde_json::Value = serde_json::from_slice(&bytes_of(response).await).unwrap();
        assert_eq!(
            (&status["kind"], &status["code"], &status["status"]),
            (&"Status".into(), &429.into(), &"Failure".into())
        );
    }

    #[tokio::test]
    async fn yaml_is_written_for_who_asks() {
        let rendering = Rendering { format: BodyFormat::Yaml, ..Rendering::default() };
        let response = rendering.respond(200, Bytes::from_static(br#"{"kind":"Pod","n":"1"}"#));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/yaml");
        let text = bytes_of(response).await;
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.contains("kind: Pod") && !text.contains("n: 1\n"), "{text}");
    }

    #[test]
    fn people_get_indented_json() {
        let info = |uri: &str| RequestInfo::new(&http::Method::GET, &uri.parse().unwrap());
        let mut headers = HeaderMap::new();
        assert!(!Rendering::new(BodyFormat::Json, &info("/x"), &headers).pretty);
        assert!(Rendering::new(BodyFormat::Json, &info("/x?pretty=1"), &headers).pretty);
        headers.insert(USER_AGENT, HeaderValue::from_static("curl/8"));
        assert!(Rendering::new(BodyFormat::Json, &info("/x"), &headers).pretty);
        assert!(!Rendering::new(BodyFormat::Json, &info("/x?pretty=false"), &headers).pretty);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip;q=0.5"));
        assert!(Rendering::new(BodyFormat::Json, &info("/x"), &headers).gzip);
    }
}
