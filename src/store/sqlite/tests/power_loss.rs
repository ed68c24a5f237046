//! Power loss: only what was flushed survives, and of the rest any part.
//!
//! `strace` records what a child process does to the files of its store, and what it acknowledges. From the record the
//! disk is put together as it could be after a loss of power at many moments: flushed writes are there, of the others
//! a random choice, the last of them torn. Every acknowledged write must then be readable, at its revision.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Writes that the child acknowledges, and moments that are tried.
const WRITES: u64 = 400;
const MOMENTS: usize = 60;

/// What the child did, in order.
#[derive(Debug)]
enum Step {
    Write { file: String, at: u64, data: Vec<u8> },
    Cut { file: String, length: u64 },
    FlushBegins { thread: u32, file: String },
    FlushEnds { thread: u32 },
    Acknowledged { key: String, revision: u64 },
}

/// Not a test of its own: the process that is recorded. It gets the path of the database on its standard input.
#[test]
fn victim_of_the_power_loss() {
    let mut path = String::new();
    std::io::stdin().take(4096).read_to_string(&mut path).unwrap();
    if !path.ends_with("state.db") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path.as_ref(), SqliteOptions::default()).unwrap();
        let tasks = (0..4).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..WRITES / 4 {
                    let key = format!("/k/{task}/{i}");
                    // Large enough that checkpoints happen on the way.
                    let revision = store.create(&key, value(i).repeat(10).into(), None).await.unwrap();
                    // In one call, so that it is one step of the record.
                    let line = format!("acknowledged {key} {revision} \n");
                    std::io::stderr().write_all(line.as_bytes()).unwrap();
                }
            })
        });
        futures::future::join_all(tasks).await;
    });
    // No orderly end: the power goes.
    nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn acknowledged_writes_survive_a_loss_of_power_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let Some(steps) = record(folder.path()) else {
        eprintln!("skipped: strace is not there or may not trace");
        return;
    };
    let acknowledged = steps.iter().filter(|s| matches!(s, Step::Acknowledged { .. })).count();
    assert_eq!(acknowledged as u64, WRITES);
    let flushes = steps.iter().filter(|s| matches!(s, Step::FlushEnds { .. })).count();
    assert!(flushes > 20, "{flushes}");
    for moment in 0..MOMENTS {
        let mut random = StdRng::seed_from_u64(moment as u64);
        let end = random.random_range(1..=steps.len());
        let after = folder.path().join(format!("after{moment}"));
        std::fs::create_dir(&after).unwrap();
        let expected = replay(&steps[..end], &after, &mut random);
        let store = match SqliteStore::open(&after.join("state.db"), SqliteOptions::default()) {
            Ok(store) => store,
            Err(error) => panic!("moment {moment}, step {end}: {error:?}"),
        };
        for (key, revision) in expected {
            let entry = store.get(key, None).await.unwrap();
            let entry = entry.unwrap_or_else(|| panic!("moment {moment}: {key} {revision} is lost"));
            assert_eq!(entry.mod_revision, Revision(revision), "moment {moment}: {key}");
        }
        drop(store);
        std::fs::remove_dir_all(&after).unwrap();
    }
}

/// Runs the child under `strace`; `None` when that is not possible here.
fn record(folder: &Path) -> Option<Vec<Step>> {
    let (database, trace) = (folder.join("state.db"), folder.join("trace"));
    let mut child = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "10000000", "-o", trace.to_str().unwrap()])
        .args(["-e", "trace=write,pwrite64,fsync,fdatasync,ftruncate", "-e", "signal=none"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::sqlite::tests::power_loss::victim_of_the_power_loss", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(database.to_str().unwrap().as_bytes()).unwrap();
    child.wait().unwrap();
    let text = std::fs::read_to_string(trace).ok()?;
    let steps = parse(&text);
    (!steps.is_empty()).then_some(steps)
}

/// Reads the record: one call a line, those that were interrupted by other threads on two.
fn parse(text: &str) -> Vec<Step> {
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut steps = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let (Ok(thread), rest) = (thread.parse::<u32>(), rest.trim_start()) else { continue };
        if let Some(first) = rest.strip_suffix(" <unfinished ...>") {
            if let Some(file) = flushed(first) {
                steps.push(Step::FlushBegins { thread, file });
            }
            begun.insert(thread, first.to_owned());
        } else if rest.starts_with("<... ") {
            let (Some(first), Some((_, second))) = (begun.remove(&thread), rest.split_once("resumed>"))
            else {
                continue;
            };
            if flushed(&first).is_some() {
                steps.push(Step::FlushEnds { thread });
            } else {
                steps.extend(call(&format!("{first}{second}")));
            }
        } else if let Some(file) = flushed(rest) {
            steps.extend([Step::FlushBegins { thread, file }, Step::FlushEnds { thread }]);
        } else {
            steps.extend(call(rest));
        }
    }
    steps
}

/// The file that a call flushes, if it does.
fn flushed(call: &str) -> Option<String> {
    (call.starts_with("fsync(") || call.starts_with("fdatasync(")).then(|| file_of(call)).flatten()
}

/// The name of the file that a call is about, if it is one of the store's.
fn file_of(call: &str) -> Option<String> {
    let path = unescape(call.split_once('<')?.1.split_once('>')?.0);
    let name = PathBuf::from(String::from_utf8(path).ok()?).file_name()?.to_str()?.to_owned();
    name.starts_with("state.db").then_some(name)
}

fn call(text: &str) -> Option<Step> {
    let (name, _) = text.split_once('(')?;
    match name {
        "pwrite64" => {
            let (_, quoted) = text.split_once(", \"")?;
            let (data, rest) = quoted.split_once("\", ")?;
            let at = rest.split(", ").nth(1)?.split(')').next()?.parse().ok()?;
            Some(Step::Write { file: file_of(text)?, at, data: unescape(data) })
        }
        "ftruncate" => {
            let length = text.split(", ").nth(1)?.split(')').next()?.parse().ok()?;
            Some(Step::Cut { file: file_of(text)?, length })
        }
        "write" if text.starts_with("write(2<") => {
            let (_, quoted) = text.split_once(", \"")?;
            let line = String::from_utf8(unescape(quoted.split_once('"')?.0)).ok()?;
            let mut words = line.strip_prefix("acknowledged ")?.split(' ');
            Some(Step::Acknowledged { key: words.next()?.to_owned(), revision: words.next()?.parse().ok()? })
        }
        _ => None,
    }
}

/// `\x2f\x74` as bytes; what is not escaped stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(1..3).filter(|_| *first == b'\\' && more[0] == b'x');
        match digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &more[3..]).1,
            None => (bytes.push(*first), rest = more).1,
        }
    }
    bytes
}

/// A file on the disk that loses power.
#[derive(Default)]
struct File {
    flushed: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Cut(u64),
}

fn apply(content: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::Write(at, data) => {
            let at = *at as usize;
            content.resize(content.len().max(at + data.len()), 0);
            content[at..at + data.len()].copy_from_slice(data);
        }
        Pending::Cut(length) => content.resize(*length as usize, 0),
    }
}

/// Makes the files as they may be after `steps`; the result is what had been acknowledged.
fn replay<'s>(steps: &'s [Step], folder: &Path, random: &mut StdRng) -> Vec<(&'s str, u64)> {
    let mut files: HashMap<&str, File> = HashMap::new();
    let mut flushing: HashMap<u32, (&str, usize)> = HashMap::new();
    let mut acknowledged = Vec::new();
    for step in steps {
        match step {
            Step::Write { file, at, data } => {
                files.entry(file).or_default().pending.push(Pending::Write(*at, data.clone()));
            }
            Step::Cut { file, length } => {
                files.entry(file).or_default().pending.push(Pending::Cut(*length));
            }
            Step::FlushBegins { thread, file } => {
                let covered = files.entry(file).or_default().pending.len();
                flushing.insert(*thread, (file, covered));
            }
            Step::FlushEnds { thread } => {
                let Some((name, covered)) = flushing.remove(thread) else { continue };
                let file = files.entry(name).or_default();
                for pending in file.pending.drain(..covered.min(file.pending.len())) {
                    apply(&mut file.flushed, &pending);
                }
                // Another flush of the same file under way covers that much less.
                for (other, count) in flushing.values_mut() {
                    if *other == name {
                        *count = count.saturating_sub(covered);
                    }
                }
            }
            Step::Acknowledged { key, revision } => acknowledged.push((key.as_str(), *revision)),
        }
    }
    for (name, mut file) in files {
        for pending in std::mem::take(&mut file.pending) {
            let torn = match pending {
                // Sectors of 512 bytes reach the disk whole.
                Pending::Write(at, mut data) if random.random_bool(0.1) => {
                    data.truncate(random.random_range(0..=data.len() / 512) * 512);
                    Pending::Write(at, data)
                }
                whole => whole,
            };
            if random.random_bool(0.5) {
                apply(&mut file.flushed, &torn);
            }
        }
        std::fs::write(folder.join(name), file.flushed).unwrap();
    }
    acknowledged
}
