//! What a CronJob needs next: a run to start, old Jobs to delete, and its status. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::cron::{Schedule, time_zone};
use crate::client::EventType;
use crate::controllers::job::view::{condition, is_finished};
use crate::controllers::workload::ownership;

/// Annotation of a Job with the time that it was scheduled for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// As many missed runs are worth a warning.
const MANY: usize = 100;
/// The clock of the scheduled time is given this much grace.
const LATER: Duration = Duration::from_millis(100);

/// A run to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The Job.
    pub job: Box<Job>,
    /// When it was scheduled for.
    pub at: Timestamp,
    /// Jobs that it takes the place of.
    pub replaces: Vec<Arc<Job>>,
}

/// Everything that one reconcile does.
#[derive(Debug, Default)]
pub struct Plan {
    /// Finished Jobs beyond the history limits.
    pub forget: Vec<Arc<Job>>,
    /// The status before a run is started.
    pub status: CronJobStatus,
    /// The run to start.
    pub start: Option<Start>,
    /// Events: type, reason, message.
    pub events: Vec<(EventType, &'static str, String)>,
    /// When to look again without any event.
    pub requeue: Option<Duration>,
}

/// Makes the plan from the Jobs that the CronJob controls. `lost` are uids of active Jobs that exist no more.
pub fn plan(cron: &CronJob, jobs: &[Arc<Job>], lost: &[String], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    plan.forget = surplus(cron, jobs);
    follow(jobs, lost, &mut plan);
    if cron.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let warn = |plan: &mut Plan, reason, message| plan.events.push((EventType::Warning, reason, message));
    let zone = match cron.spec.time_zone.as_deref().map(time_zone) {
        None => TimeZone::UTC,
        Some(Ok(zone)) => zone,
        Some(Err(error)) => {
            let name = cron.spec.time_zone.as_deref().unwrap_or_default();
            warn(&mut plan, "UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}"));
            return plan;
        }
    };
    if cron.spec.suspend == Some(true) {
        return plan;
    }
    let schedule = match Schedule::parse(&cron.spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let text = &cron.spec.schedule;
            warn(&mut plan, "UnparseableSchedule", format!("unparseable schedule: {text:?} : {error}"));
            return plan;
        }
    };
    run(cron, jobs, &schedule, &zone, now, &mut plan);
    let next = schedule.next(now, &zone);
    plan.requeue = next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default() + LATER);
    plan
}

/// Finished Jobs beyond the limits, the oldest first.
fn surplus(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let ended = |type_: &'static str| {
        move |job: &&Arc<Job>| job.status.as_ref().is_some_and(|status| condition(status, type_).is_some())
    };
    let mut all = Vec::new();
    let limits = [
        ("Complete", cron.spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", cron.spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (type_, limit) in limits {
        let mut of_type: Vec<_> = jobs.iter().filter(ended(type_)).cloned().collect();
        of_type.sort_by_key(|job| {
            let started = job.status.as_ref().and_then(|status| status.start_time.as_ref());
            (started.is_none(), started.map(|time| time.0), job.metadata.name.clone())
        });
        let surplus = of_type.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        all.extend(of_type.into_iter().take(surplus));
    }
    all.retain(|job| job.metadata.deletion_timestamp.is_none());
    all
}

/// Brings the list of active Jobs up to date.
fn follow(jobs: &[Arc<Job>], lost: &[String], plan: &mut Plan) {
    let Plan { status, events, .. } = plan;
    let mut active = status.active.take().unwrap_or_default();
    for job in jobs {
        let (name, uid) = (job.metadata.name.as_deref().unwrap_or_default(), job.metadata.uid.as_deref());
        let listed = active.iter().any(|known| known.uid.as_deref() == uid);
        if !is_finished(job) {
            if !listed {
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                events.push((EventType::Warning, "UnexpectedJob", message));
            }
            continue;
        }
        let told = job.status.clone().unwrap_or_default();
        let succeeded = condition(&told, "Complete").is_some();
        if listed {
            active.retain(|known| known.uid.as_deref() != uid);
            let how = if succeeded { "Complete" } else { "Failed" };
            let message = format!("Saw completed job: {name}, condition: {how}");
            events.push((EventType::Normal, "SawCompletedJob", message));
        }
        let before = status.last_successful_time.as_ref().map(|time| time.0);
        if let Some(done) = told.completion_time.filter(|done| succeeded && Some(done.0) > before) {
            status.last_successful_time = Some(done);
        }
    }
    active.retain(|known| {
        let gone = known.uid.as_ref().is_some_and(|uid| lost.contains(uid));
        if gone {
            let message = format!("Active job went missing: {}", known.name.as_deref().unwrap_or_default());
            events.push((EventType::Normal, "MissingJob", message));
        }
        !gone
    });
    status.active = Some(active).filter(|active| !active.is_empty());
}

/// The last time up to `now` at which a run was due and has not been started, and how many such times there were.
fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<(Timestamp, usize)> {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let mut earliest = last.or(cron.metadata.creation_timestamp.as_ref())?.0;
    if let Some(deadline) = cron.spec.starting_deadline_seconds {
        let window = now.checked_sub(SignedDuration::from_secs(deadline)).unwrap_or(earliest);
        earliest = earliest.max(window);
    }
    let first = schedule.next(earliest, zone).filter(|first| *first <= now)?;
    let second = schedule.next(first, zone).filter(|second| *second <= now);
    let Some(second) = second else { return Some((first, 1)) };
    // Runs come at about equal distances: leap near the end rather than count years of minutes.
    let pause = second.duration_since(first);
    let gap = now.duration_since(first).as_secs() / pause.as_secs().max(1);
    let count = usize::try_from(gap).unwrap_or(usize::MAX).saturating_add(1);
    let mut latest = second;
    if count > MANY {
        let near = now.checked_sub(pause * 2).unwrap_or(second);
        latest =
            latest.max(schedule.next(near.max(first), zone).filter(|near| *near <= now).unwrap_or(second));
    }
    while let Some(next) = schedule.next(latest, zone).filter(|next| *next <= now) {
        latest = next;
    }
    Some((latest, count))
}

fn run(
    cron: &CronJob,
    jobs: &[Arc<Job>],
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    plan: &mut Plan,
) {
    let Some((at, missed)) = due(cron, schedule, zone, now) else { return };
    let mut tell = |event_type, reason, message: String| plan.events.push((event_type, reason, message));
    if missed > MANY {
        let message =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        tell(EventType::Warning, "TooManyMissedTimes", message.to_owned());
    }
    let deadline = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| now.duration_since(at) > deadline) {
        let text = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        tell(EventType::Warning, "MissSchedule", format!("Missed scheduled time to start a job: {text}"));
        return;
    }
    let name = job_name(cron, at);
    let active = plan.status.active.clone().unwrap_or_default();
    let started = active.iter().any(|known| known.name.as_ref() == Some(&name))
        || plan.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == at);
    if started {
        return;
    }
    let policy = cron.spec.concurrency_policy.as_deref();
    if policy == Some("Forbid") && !active.is_empty() {
        let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
        tell(EventType::Normal, "JobAlreadyActive", message.to_owned());
        return;
    }
    let mut replaces = Vec::new();
    if policy == Some("Replace") {
        let listed = |job: &&Arc<Job>| active.iter().any(|known| known.uid == job.metadata.uid);
        replaces = jobs.iter().filter(listed).cloned().collect();
    }
    plan.start = Some(Start { job: Box::new(job(cron, name, at, zone)), at, replaces });
}

/// The name of the Job for a scheduled time: one for each minute.
fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name.as_deref().unwrap_or_default(), at.as_second() / 60)
}

fn job(cron: &CronJob, name: String, at: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let from = template.metadata.unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    let local = zone.to_datetime(at);
    let offset = zone.to_offset(at);
    let text = if offset.seconds() == 0 {
        format!("{}Z", local.strftime("%Y-%m-%dT%H:%M:%S"))
    } else {
        at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    };
    annotations.insert(SCHEDULED.to_owned(), text);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron.metadata.namespace.clone(),
            labels: from.labels,
            annotations: Some(annotations),
            creation_timestamp: None,
            owner_references: Some(vec![ownership::controller_reference(
                "batch/v1",
                "CronJob",
                &cron.metadata,
            )]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// The status after the run was started as `made`.
pub fn started(mut status: CronJobStatus, made: &Job, at: Timestamp) -> CronJobStatus {
    let reference = k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: made.metadata.name.clone(),
        namespace: made.metadata.namespace.clone(),
        uid: made.metadata.uid.clone(),
        resource_version: made.metadata.resource_version.clone(),
        field_path: None,
    };
    status.active.get_or_insert_default().push(reference);
    status.last_schedule_time = Some(Time(at));
    status
}
