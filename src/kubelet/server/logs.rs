//! `/containerLogs`: a container's log, from its file, followed while it runs.

use std::path::PathBuf;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::containers::{self, Names, Unavailable};
use super::routes::parameters;
use super::{Sources, refusal, text};
use crate::client::{Event, Key};
use crate::cri::v1;
use crate::kubelet::logs::{follow, read::Options};

/// Pieces of a log that wait for a slow client; reading pauses when there are more.
const WAITING_PIECES: usize = 8;

/// What the query asks for, beside the options of reading.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    options: Options,
    previous: bool,
}

pub(super) async fn answer(
    request: &Request<Incoming>,
    sources: &Sources,
    names: Names<'_>,
    tasks: &TaskTracker,
) -> Response<Body> {
    let opened = async {
        let wanted = wanted(request.uri().query(), Timestamp::now())
            .map_err(|why| Unavailable::new(StatusCode::BAD_REQUEST, why))?;
        let container = containers::find(sources, names, wanted.previous).await?;
        let status = sources.runtime.container_status(&container.id, false).await?.status.unwrap_or_default();
        Ok::<_, Unavailable>((wanted, status))
    };
    match opened.await {
        Err(Unavailable { code, why }) => refusal(code, &why),
        Ok((wanted, status)) => {
            text(Body::from_stream(stream_log(sources, names, wanted.options, status, tasks)))
        }
    }
}

fn stream_log(
    sources: &Sources,
    names: Names<'_>,
    options: Options,
    status: v1::ContainerStatus,
    tasks: &TaskTracker,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + use<> {
    let (out, pieces) = mpsc::channel(WAITING_PIECES);
    let running = status.state() == v1::ContainerState::ContainerRunning;
    let (alive, is_alive) = watch::channel(running);
    let path = PathBuf::from(&status.log_path);
    if options.follow && running {
        tasks.spawn(watch_end(sources.clone(), Key::new(names.0, names.1), status.id.clone(), alive));
    } else {
        alive.send_replace(false);
    }
    tasks.spawn(async move {
        if let Err(error) = follow::stream(path, options, is_alive, out).await {
            debug!(%error, "reading a log failed");
        }
    });
    stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) }).map(Ok)
}

/// Tells the reader when the container has ended; looks whenever its pod changes.
async fn watch_end(sources: Sources, pod: Key, id: String, alive: watch::Sender<bool>) {
    let mut changes = sources.pods.subscribe();
    loop {
        let concerns = tokio::select! {
            event = changes.next() => match event {
                Event::Resync => true,
                Event::Change(change) => Key::of(&**change.object()) == pod,
            },
            () = alive.closed() => return,
        };
        if !concerns {
            continue;
        }
        let answer = sources.runtime.container_status(&id, false).await;
        let state = answer.ok().and_then(|answer| answer.status).map(|status| status.state());
        if state != Some(v1::ContainerState::ContainerRunning) {
            alive.send_replace(false);
            return;
        }
    }
}

/// The query's parameters, those of `PodLogOptions`.
fn wanted(query: Option<&str>, now: Timestamp) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for (name, value) in parameters(query) {
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: {value:?} is not a number"));
        let options = &mut wanted.options;
        match name.as_str() {
            "follow" => options.follow = flag(&name, &value)?,
            "previous" => wanted.previous = flag(&name, &value)?,
            "timestamps" => options.timestamps = flag(&name, &value)?,
            "tailLines" => options.tail = Some(number()?),
            "limitBytes" => options.limit_bytes = Some(number()?),
            "sinceSeconds" => {
                let seconds = i64::try_from(number()?).map_err(|_| format!("{name}: {value} is too much"))?;
                options.since = now.checked_sub(SignedDuration::from_secs(seconds)).ok();
            }
            "sinceTime" => {
                let time =
                    value.parse::<Timestamp>().map_err(|_| format!("{name}: {value:?} is not a time"))?;
                options.since = Some(time);
            }
            "stream" => {
                options.stderr = match value.as_str() {
                    "All" | "" => None,
                    "Stdout" => Some(false),
                    "Stderr" => Some(true),
                    _ => return Err(format!("stream: {value:?} is none of All, Stdout, Stderr")),
                }
            }
            _ => {}
        }
    }
    Ok(wanted)
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{name}: {value:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_that_of_pod_log_options() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let read = |query: &str| wanted(Some(query), now).unwrap();
        let all = read("follow=true&tailLines=5&timestamps=1&limitBytes=9&previous=true&stream=Stderr");
        assert!(all.previous && all.options.follow && all.options.timestamps);
        assert_eq!(
            (all.options.tail, all.options.limit_bytes, all.options.stderr),
            (Some(5), Some(9), Some(true))
        );
        let since: Timestamp = "2026-01-01T00:00:50Z".parse().unwrap();
        assert_eq!(read("sinceSeconds=10").options.since, Some(since));
        assert_eq!(read("sinceTime=2026-01-01T00%3A00%3A50Z").options.since, Some(since));
        assert_eq!(wanted(None, now).unwrap(), Wanted::default());
        for wrong in ["tailLines=x", "follow=maybe", "sinceTime=yesterday", "stream=both", "limitBytes=-1"] {
            assert!(wanted(Some(wrong), now).is_err(), "{wrong}");
        }
    }
}
