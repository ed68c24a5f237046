//! Keeps the disk from filling: rotates logs while there are pods, removes unused images when space runs out.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cri::v1;
use crate::kubelet::context::Context;
use crate::kubelet::images::import::imported;
use crate::kubelet::images::{gc, pause};
use crate::kubelet::logs::rotate::rotate;
use crate::kubelet::pods::table::Table;
use crate::kubelet::spec;

const IMAGE_PERIOD: Duration = Duration::from_secs(300);
/// How often volumes are published again whose driver asks for that; upstream does it at every look at a pod.
const REPUBLISH_PERIOD: Duration = Duration::from_secs(60);

/// Works until `stop`.
pub async fn run(ctx: Arc<Context>, table: Table, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        tokio::join!(rotate_logs(&ctx, &table), collect_images(&ctx), publish_again(&ctx, &table));
    })
    .await;
}

async fn rotate_logs(ctx: &Context, table: &Table) {
    loop {
        table.not_empty().await;
        tokio::time::sleep(ctx.config.log_monitor).await;
        for snapshot in table.snapshots() {
            for container in snapshot.observed.containers.iter().filter(|c| c.running()) {
                let path = Path::new(&container.log_path);
                let (bytes, files) = (ctx.config.container_log_max_bytes, ctx.config.container_log_max_files);
                if let Err(error) = rotate(&ctx.runtime, &container.id, path, bytes, files, ctx.now()).await {
                    tracing::warn!(path = %path.display(), %error, "log not rotated");
                }
            }
        }
    }
}

/// Publishes volumes again whose drivers keep their content up to date that way (`requiresRepublish`).
async fn publish_again(ctx: &Context, table: &Table) {
    loop {
        tokio::time::sleep(REPUBLISH_PERIOD).await;
        for snapshot in table.snapshots().into_iter().filter(|snapshot| snapshot.active) {
            let Some(pod) = snapshot.pod else { continue };
            if snapshot.observed.ready_sandbox().is_none() || !ctx.volumes.csi().republishes(&pod).await {
                continue;
            }
            let ips =
                snapshot.observed.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
            let node = ctx.node.borrow().clone();
            if let Err(error) = ctx.volumes.prepare(&pod, &ctx.facts(ips), node.as_deref()).await {
                tracing::debug!(
                    pod = spec::uid(&pod),
                    error = &error as &dyn std::error::Error,
                    "volume not published again"
                );
            }
        }
    }
}

async fn collect_images(ctx: &Context) {
    loop {
        if let Err(error) = collect_once(ctx).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "images not collected");
        }
        tokio::time::sleep(IMAGE_PERIOD).await;
    }
}

/// Removes every image that nothing uses, because the disk is full.
pub async fn collect_unused(ctx: &Context) {
    if let Err(error) = collect(ctx, u64::MAX).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "images not collected");
    }
}

async fn collect_once(ctx: &Context) -> Result<(), crate::cri::CriError> {
    let info = ctx.runtime.image_fs_info().await?;
    let mount = info.image_filesystems.into_iter().find_map(|f| f.fs_id).map(|id| id.mountpoint);
    let usage = mount.and_then(|m| ctx.host.filesystems.usage(Path::new(&m)).ok());
    let excess = usage.and_then(|u| gc::excess(u.capacity, u.available, ctx.config.image_gc_percent));
    collect(ctx, excess.unwrap_or(0)).await
}

/// Removes unused images until so many bytes are free, and those that have not been used for too long.
async fn collect(ctx: &Context, bytes: u64) -> Result<(), crate::cri::CriError> {
    let containers = ctx.runtime.list_containers(None).await?;
    let used: HashSet<String> = containers
        .into_iter()
        .flat_map(|c| [c.image.map(|i| i.image).unwrap_or_default(), c.image_ref, c.image_id])
        .filter(|name| !name.is_empty())
        // Pods need it at any time, no container names it, and there is nowhere to pull it from.
        .chain([pause::IMAGE.to_owned()])
        // What came from an archive may be all there is of it.
        .chain(ctx.config.image_record.as_deref().map(imported).unwrap_or_default())
        .collect();
    let images = ctx.runtime.list_images(None).await?;
    let ask = gc::Ask { images: &images, used: &used, now: ctx.now(), ages: ctx.config.image_ages };
    let plan = {
        let mut ages = ctx.images.ages.lock().unwrap_or_else(PoisonError::into_inner);
        ages.note(ask);
        ages.plan(ask, bytes)
    };
    let mut failed = None;
    for id in plan {
        tracing::info!(image = %id, "unused image removed");
        let removed = ctx.runtime.remove_image(v1::ImageSpec { image: id, ..v1::ImageSpec::default() }).await;
        // One that cannot go does not keep the others.
        failed = removed.err().or(failed);
    }
    failed.map_or(Ok(()), Err)
}
