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

    #[tokio::test]
    async fn nobody_listening_is_a_failure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let got = probe("127.0.0.1", port, "", Duration::from_secs(5)).await;
        assert!(matches!(got, Outcome::Failure(text) if text.contains("failed to connect")));
    }
}
