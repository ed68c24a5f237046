//! The standard gRPC health check.

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;

use super::track::Outcome;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks the service at this address for its health.
pub async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let target = format!("{host}:{port}");
    match tokio::time::timeout(timeout, check(&target, service)).await {
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service \"{target}\" within {timeout:?}: context deadline exceeded"
        )),
        Ok(Err(CheckError::Connect(text))) => {
            Outcome::Failure(format!("error: failed to connect service at \"{target}\": {text}"))
        }
        Ok(Err(CheckError::Rpc(status))) if status.code() == tonic::Code::Unimplemented => {
            Outcome::Failure(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            ))
        }
        Ok(Err(CheckError::Rpc(status))) => {
            Outcome::Failure(format!("error: health rpc probe failed: {}", status.message()))
        }
        Ok(Ok(SERVING)) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!("service unhealthy (responded with \"{status}\")")),
    }
}

enum CheckError {
    Connect(String),
    Rpc(tonic::Status),
}

async fn check(target: &str, service: &str) -> Result<i32, CheckError> {
    let connect = |e: tonic::transport::Error| CheckError::Connect(e.to_string());
    let channel = Endpoint::from_shared(format!("http://{target}"))
        .map_err(connect)?
        .connect()
        .await
        .map_err(connect)?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(connect)?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let answer = client.unary(request, path, codec).await.map_err(CheckError::Rpc)?;
    Ok(answer.into_inner().status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::server::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::convert::Infallible;

    /// Answers one connection's checks with this status; its port.
    async fn server(status: u8) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let answer =
                hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let end = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
                    let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
                    let frames = [Frame::data(message), Frame::trailers(end)].map(Ok::<_, Infallible>);
                    let body = StreamBody::new(futures::stream::iter(frames));
                    let answer =
                        http::Response::builder().header("content-type", "application/grpc").body(body);
                    Ok::<_, Infallible>(answer.unwrap())
                });
            let builder = http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(stream), answer).await.ok();
        });
        port
    }

    /// `[sig-node] Probing container … with a GRPC liveness probe`.
    #[tokio::test]
    async fn only_a_serving_service_is_healthy() {
        let ask = async |status| probe("127.0.0.1", server(status).await, "", Duration::from_secs(5)).await;
        assert_eq!(ask(1).await, Outcome::Success);
        let failure = Outcome::Failure("service unhealthy (responded with \"2\")".into());
        assert_eq!(ask(2).await, failure);
    }

    #[tokio::test]
    async fn nobody_listening_is_a_failure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let got = probe("127.0.0.1", port, "", Duration::from_secs(5)).await;
        assert!(matches!(got, Outcome::Failure(text) if text.contains("failed to connect")));
    }
}
