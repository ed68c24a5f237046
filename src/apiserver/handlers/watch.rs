//! `watch`: events stream as they happen, each one a line that all watchers share, or a message of a WebSocket.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use super::ResourceCall;
use crate::api::error::ApiError;
use crate::api::protobuf;
use crate::apiserver::ApiServer;
use crate::apiserver::streaming::output::{self, Wrapping};
use crate::apiserver::streaming::{bridge, upgrade};
use crate::registry::WatchOptions;

/// A watch without `timeoutSeconds` ends after a random time between this and twice this, so that the watchers of a
/// restarted server do not come back all at once for ever after.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Events that wait for the same watcher leave together, at most so many: one frame instead of one for each.
const TOGETHER: usize = 32;

/// Lines as one piece; a single one is passed on as it is, shared with other watchers.
fn join(mut lines: Vec<Bytes>) -> Bytes {
    match lines.len() {
        1 => lines.swap_remove(0),
        _ => lines.concat().into(),
    }
}

impl ApiServer {
    pub(super) async fn watch(&self, call: &ResourceCall<'_>) -> Result<Response<Body>, ApiError> {
        let options = WatchOptions::from_query(&call.info.query)?;
        let timeout = match options.timeout_seconds {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
            _ => {
                DEFAULT_TIMEOUT
                    + Duration::from_secs_f64(rand::random::<f64>() * DEFAULT_TIMEOUT.as_secs_f64())
            }
        };
        let events = self.registry.watch(&call.context, call.row, call.namespace(), &options).await?;
        let stop = self.stop.clone();
        let end = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(timeout) => {}
            }
        };
        let events = events.take_until(end);
        if upgrade::is_websocket(call.headers)
            && let Some(client) = call.upgrade.clone()
        {
            let wrapping = if call.context.protobuf_events { Wrapping::Binary(None) } else { Wrapping::Text };
            // Upstream's server speaks whatever single subprotocol the client names.
            let protocol = upgrade::websocket_protocols(call.headers).first().copied();
            let answer = bridge::handshake(call.headers, protocol)?;
            output::spawn(wrapping, client, events.map(Ok), &self.tunnels, self.stop.clone());
            return Ok(answer);
        }
        let chunks = events.ready_chunks(TOGETHER).map(|lines| Ok::<_, Infallible>(join(lines)));
        let mut response = Response::new(Body::from_stream(chunks));
        let media_type =
            if call.context.protobuf_events { protobuf::WATCH_MEDIA_TYPE } else { "application/json" };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        Ok(response)
    }
}
