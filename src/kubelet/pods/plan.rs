//! What to do next for one pod, decided from its spec and from what the runtime holds. No I/O, no clock of its own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff::{NextRun, next_run};
use super::state::Life;
use crate::kubelet::observed::{ObservedContainer, ObservedPod, ObservedSandbox, RunState};
use crate::kubelet::spec::{self, Kind};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the pod's sandbox; containers follow in a later plan.
    CreateSandbox {
        /// How many sandboxes the pod had before.
        attempt: u32,
    },
    /// Stop a sandbox whose containers are gone.
    StopSandbox {
        /// Runtime's id.
        id: String,
    },
    /// Pull the image, make and start a container.
    Start(Start),
    /// Stop a container.
    Kill(Kill),
    /// Remove a container that was made and never started.
    Remove {
        /// Runtime's id.
        id: String,
    },
}

/// A container to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Name in the spec.
    pub name: String,
    /// Which rules apply.
    pub kind: Kind,
    /// Sandbox to start it in.
    pub sandbox_id: String,
    /// How often it was restarted before.
    pub attempt: u32,
    /// Wait that this run carries for the restart after it.
    pub backoff: Duration,
}

/// A container to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    /// Runtime's id.
    pub id: String,
    /// Name in the spec.
    pub name: String,
    /// SIGKILL comes after this time, the preStop hook included.
    pub grace: Duration,
    /// Text of the `Killing` event.
    pub message: String,
}

/// What the worker knows beside the spec and the runtime's report.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Containers whose start failed, with the time before which another try makes no sense.
    pub failures: HashMap<String, StartFailure>,
    /// Containers (ids) whose startup probe passed, or that have none and whose postStart hook is done.
    pub started: HashSet<String>,
    /// Containers (ids) that failed their liveness or startup probe, with the event text and the grace period.
    pub unhealthy: HashMap<String, (String, Duration)>,
    /// Containers (ids) that are being stopped.
    pub killing: HashSet<String>,
    /// A sandbox or container start is under way.
    pub starting: bool,
    /// Not before this time: making a sandbox or mounting volumes failed.
    pub retry_sandbox_at: Option<Timestamp>,
}

impl Memory {
    /// The clock was set forward or back by so much: waits that have begun end when they would have.
    pub fn shift(&mut self, by: SignedDuration) {
        let waits = self.failures.values_mut().map(|failure| &mut failure.retry_at);
        for at in waits.chain(&mut self.retry_sandbox_at) {
            *at = at.saturating_add(by).unwrap_or(*at);
        }
    }
}

/// Why a container could not be started, as its waiting state says it.
#[derive(Clone, Debug, PartialEq)]
pub struct StartFailure {
    /// `ErrImagePull`, `CreateContainerConfigError`, ….
    pub reason: String,
    /// Text for the user.
    pub message: String,
    /// Earliest next try.
    pub retry_at: Timestamp,
}

/// The outcome of planning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be done, in order; kills may run side by side.
    pub actions: Vec<Action>,
    /// Containers that wait out a back-off, with the text that their status shows.
    pub crash_loop: BTreeMap<String, String>,
    /// Plan again at this time even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// Everything that planning reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The pod, or `None` for an orphan that only the runtime knows.
    pub pod: Option<&'a Pod>,
    /// What the runtime holds.
    pub observed: &'a ObservedPod,
    /// What the worker knows.
    pub memory: &'a Memory,
    /// The time.
    pub now: Timestamp,
    /// Longest wait between two runs of a container that fails.
    pub longest_wait: Duration,
}

/// Plans the next actions for a pod in this state.
pub fn plan(life: &Life, input: Input<'_>) -> Plan {
    let mut planner = Planner { input, out: Plan::default() };
    match (life, input.pod) {
        (Life::Active, Some(pod)) => planner.active(pod),
        (Life::Active, None) | (Life::Gone, _) => {}
        (Life::Stopping(stop), pod) => planner.stopping(pod, stop.remaining(input.now), stop.grace),
        (Life::Stopped(_), _) => planner.stopped(),
    }
    planner.out
}

/// Whether all containers ended and none will be restarted.
pub fn completed(pod: &Pod, observed: &ObservedPod) -> bool {
    if init_failed_for_good(pod, observed) {
        return true;
    }
    let mains = spec::main_containers(pod);
    !mains.is_empty()
        && mains.iter().all(|c| observed.latest(&c.name).is_some_and(|o| done_for_good(pod, c, o)))
}

fn done_for_good(pod: &Pod, c: &Container, o: &ObservedContainer) -> bool {
    o.state == RunState::Exited && !spec::container_restarts(pod, c, o.exit_code)
}

fn init_failed_for_good(pod: &Pod, observed: &ObservedPod) -> bool {
    spec::init_containers(pod).iter().filter(|c| !spec::is_sidecar(c)).any(|c| {
        observed.latest(&c.name).is_some_and(|o| {
            o.state == RunState::Exited && o.exit_code != 0 && !init_restarts(pod, c, o.exit_code)
        })
    })
}

/// A failed init container restarts unless the policy is `Never`; `Always` means `OnFailure` for it.
fn init_restarts(pod: &Pod, c: &Container, exit_code: i32) -> bool {
    exit_code != 0 && spec::container_restarts(pod, c, exit_code)
}

struct Planner<'a> {
    input: Input<'a>,
    out: Plan,
}

/// What to do with one container name.
enum Next<'a> {
    Run { attempt: u32, backoff: Duration },
    Wait,
    Running(&'a ObservedContainer),
    Done,
}

impl<'a> Planner<'a> {
    fn active(&mut self, pod: &'a Pod) {
        if self.input.memory.starting {
            // Only kills may go beside a start; the end of the start plans again.
            if let Some(sandbox) = self.usable_sandbox(pod) {
                self.kill_unhealthy(pod, &sandbox.id);
            }
            return;
        }
        match self.usable_sandbox(pod) {
            Some(sandbox) => {
                let id = sandbox.id.clone();
                self.kill_unhealthy(pod, &id);
                self.containers(pod, &id);
            }
            None => self.recreate_sandbox(pod),
        }
    }

    /// The newest sandbox, when it is alive and has what the pod needs.
    fn usable_sandbox(&self, pod: &Pod) -> Option<&'a ObservedSandbox> {
        let newest = self.input.observed.sandboxes.first()?;
        let addressed = spec::host_network(pod) || !newest.ips.is_empty();
        (newest.ready && addressed).then_some(newest)
    }

    fn recreate_sandbox(&mut self, pod: &Pod) {
        let observed = self.input.observed;
        let alive: Vec<_> = observed.alive().collect();
        for c in alive.iter().filter(|c| !self.input.memory.killing.contains(&c.id)) {
            let grace = spec::spec_grace(pod);
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.out.actions.push(Action::Kill(Kill {
                id: c.id.clone(),
                name: c.name.clone(),
                grace,
                message,
            }));
        }
        if !alive.is_empty() || completed(pod, observed) {
            return;
        }
        if let Some(at) = self.input.memory.retry_sandbox_at.filter(|at| *at > self.input.now) {
            self.wake(at);
            return;
        }
        for dead in observed.sandboxes.iter().filter(|s| s.ready) {
            self.out.actions.push(Action::StopSandbox { id: dead.id.clone() });
        }
        let attempt = observed.sandboxes.iter().map(|s| s.attempt + 1).max().unwrap_or(0);
        self.out.actions.push(Action::CreateSandbox { attempt });
    }

    fn kill_unhealthy(&mut self, pod: &Pod, sandbox: &str) {
        for c in self.input.observed.containers.iter().filter(|c| c.running()) {
            if self.input.memory.killing.contains(&c.id) {
                continue;
            }
            let reason = self.reason_to_kill(pod, c, sandbox);
            if let Some((message, grace)) = reason {
                let kill = Kill { id: c.id.clone(), name: c.name.clone(), grace, message };
                self.out.actions.push(Action::Kill(kill));
            }
        }
    }

    fn reason_to_kill(&self, pod: &Pod, c: &ObservedContainer, sandbox: &str) -> Option<(String, Duration)> {
        if let Some((message, grace)) = self.input.memory.unhealthy.get(&c.id) {
            return Some((message.clone(), *grace));
        }
        if c.sandbox_id != sandbox {
            let message = format!("Container {} belongs to a former sandbox", c.name);
            return Some((message, spec::spec_grace(pod)));
        }
        let (kind, wanted) = spec::find_container(pod, &c.name)?;
        let changed =
            kind != Kind::Ephemeral && !c.hash.is_empty() && c.hash != spec::container_hash(&wanted);
        changed.then(|| {
            (format!("Container {} definition changed, will be restarted", c.name), spec::spec_grace(pod))
        })
    }

    fn containers(&mut self, pod: &'a Pod, sandbox: &str) {
        for e in spec::ephemeral_containers(pod) {
            if self.input.observed.latest(&e.name).is_none() {
                self.start(&e.name, Kind::Ephemeral, sandbox, 0, Duration::ZERO);
            }
        }
        if !self.init(pod, sandbox) {
            return;
        }
        for c in spec::main_containers(pod) {
            if let Next::Run { attempt, backoff } = self.next(pod, c, Kind::Main, sandbox) {
                self.start(&c.name, Kind::Main, sandbox, attempt, backoff);
            }
        }
    }

    /// Moves the init containers on; true when the main containers may run.
    fn init(&mut self, pod: &'a Pod, sandbox: &str) -> bool {
        let initialized = spec::main_containers(pod)
            .iter()
            .any(|c| self.input.observed.latest_in(sandbox, &c.name).is_some());
        for c in spec::init_containers(pod) {
            let kind = spec::init_kind(c);
            if initialized && kind == Kind::Init {
                continue;
            }
            match self.next(pod, c, kind, sandbox) {
                Next::Run { attempt, backoff } => {
                    self.start(&c.name, kind, sandbox, attempt, backoff);
                    if !initialized {
                        return false;
                    }
                }
                Next::Wait if !initialized => return false,
                Next::Running(o) if !initialized => {
                    if kind == Kind::Init || !self.input.memory.started.contains(&o.id) {
                        return false;
                    }
                }
                Next::Wait | Next::Running(_) | Next::Done => {}
            }
        }
        true
    }

    fn next(&mut self, pod: &Pod, c: &Container, kind: Kind, sandbox: &str) -> Next<'a> {
        let observed = self.input.observed;
        let here = match kind {
            // A new sandbox runs the init containers again; ordinary containers keep their history.
            Kind::Init | Kind::Sidecar => observed.latest_in(sandbox, &c.name),
            Kind::Main | Kind::Ephemeral => observed.latest(&c.name),
        };
        let Some(last) = here else { return self.first_run(pod, c) };
        match last.state {
            RunState::Running if last.sandbox_id == sandbox => Next::Running(last),
            RunState::Running | RunState::Unknown => Next::Wait,
            RunState::Created => {
                self.out.actions.push(Action::Remove { id: last.id.clone() });
                self.gate(c, Next::Run { attempt: last.attempt, backoff: last.backoff })
            }
            RunState::Exited => self.after_exit(pod, c, kind, last),
        }
    }

    fn first_run(&mut self, pod: &Pod, c: &Container) -> Next<'a> {
        let history = self.input.observed.latest(&c.name).map(|o| o.attempt + 1);
        let attempt = history.or_else(|| restarts_in_status(pod, &c.name)).unwrap_or(0);
        self.gate(c, Next::Run { attempt, backoff: Duration::ZERO })
    }

    fn after_exit(&mut self, pod: &Pod, c: &Container, kind: Kind, last: &ObservedContainer) -> Next<'a> {
        let again = match kind {
            Kind::Init if last.exit_code == 0 => return Next::Done,
            Kind::Init => init_restarts(pod, c, last.exit_code),
            Kind::Sidecar => true,
            Kind::Main => spec::container_restarts(pod, c, last.exit_code),
            Kind::Ephemeral => false,
        };
        if !again {
            // A failed init container that may not run again keeps everything after it from starting.
            return if kind == Kind::Init { Next::Wait } else { Next::Done };
        }
        let run = next_run(last, self.input.longest_wait);
        if !run.is_due(self.input.now) {
            self.crash_loop(pod, c, run);
            return Next::Wait;
        }
        let attempt = self.input.observed.of(&c.name).map(|o| o.attempt + 1).max().unwrap_or(0);
        self.gate(c, Next::Run { attempt, backoff: run.backoff })
    }

    fn crash_loop(&mut self, pod: &Pod, c: &Container, run: NextRun) {
        self.wake(run.not_before);
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            go_duration(run.wait),
            c.name,
            spec::named(pod)
        );
        self.out.crash_loop.insert(c.name.clone(), message);
    }

    /// Holds a start back while a former failure's retry time has not come.
    fn gate(&mut self, c: &Container, run: Next<'a>) -> Next<'a> {
        match self.input.memory.failures.get(&c.name) {
            Some(failure) if failure.retry_at > self.input.now => {
                self.wake(failure.retry_at);
                Next::Wait
            }
            _ => run,
        }
    }

    fn start(&mut self, name: &str, kind: Kind, sandbox: &str, attempt: u32, backoff: Duration) {
        self.out.actions.push(Action::Start(Start {
            name: name.to_owned(),
            kind,
            sandbox_id: sandbox.to_owned(),
            attempt,
            backoff,
        }));
    }

    /// Ordinary containers stop together; then the sidecars, last one first.
    fn stopping(&mut self, pod: Option<&Pod>, remaining: Duration, grace: Duration) {
        let sidecars: Vec<&str> = pod
            .map(|p| {
                spec::init_containers(p).iter().filter(|c| spec::is_sidecar(c)).map(|c| &*c.name).collect()
            })
            .unwrap_or_default();
        let (side, main): (Vec<_>, Vec<_>) =
            self.input.observed.alive().partition(|c| sidecars.contains(&c.name.as_str()));
        let turn: Vec<_> = if main.is_empty() {
            side.into_iter().max_by_key(|c| sidecars.iter().position(|s| *s == c.name)).into_iter().collect()
        } else {
            main
        };
        let left = remaining.max(Duration::from_secs(2).min(grace));
        for c in turn {
            let message = format!("Stopping container {}", c.name);
            let kill = Kill { id: c.id.clone(), name: c.name.clone(), grace: left, message };
            self.out.actions.push(Action::Kill(kill));
        }
        for c in self.input.observed.containers.iter().filter(|c| c.state == RunState::Created) {
            self.out.actions.push(Action::Remove { id: c.id.clone() });
        }
    }

    fn stopped(&mut self) {
        for sandbox in self.input.observed.sandboxes.iter().filter(|s| s.ready) {
            self.out.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.out.wake_at = Some(self.out.wake_at.map_or(at, |was| was.min(at)));
    }
}

/// The next restart count of a container whose history the runtime has lost.
fn restarts_in_status(pod: &Pod, name: &str) -> Option<u32> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let own = lists.into_iter().flatten().flatten().find(|s| s.name == name)?;
    own.container_id.as_ref().filter(|id| !id.is_empty())?;
    u32::try_from(own.restart_count).ok().map(|n| n + 1)
}

/// A duration as Go prints it: `10s`, `2m40s`, `5m0s`.
pub fn go_duration(d: Duration) -> String {
    let seconds = d.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}
