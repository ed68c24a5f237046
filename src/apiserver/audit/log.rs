//! The file that events are written to: a new one is begun when it is full, and old ones are removed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use super::AuditOptions;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Megabytes of a file of which nothing is said.
const DEFAULT_MEGABYTES: u64 = 100;

/// The log.
pub(super) struct Log {
    sink: Sink,
}

enum Sink {
    Standard,
    Files(Files),
}

struct Files {
    path: PathBuf,
    file: File,
    size: u64,
    most: u64,
    max_backups: usize,
    max_age: Option<Duration>,
}

impl Log {
    /// Opens the file, whose directory is made where it is missing.
    pub(super) fn open(path: &Path, options: &AuditOptions) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { sink: Sink::Standard });
        }
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory)?;
        }
        let file = open(path)?;
        let megabytes =
            Some(options.max_size_megabytes).filter(|size| *size > 0).unwrap_or(DEFAULT_MEGABYTES);
        let files = Files {
            path: path.to_owned(),
            size: file.metadata()?.len(),
            file,
            most: megabytes << 20,
            max_backups: options.max_backups,
            max_age: Some(options.max_age_days).filter(|days| *days > 0).map(|days| DAY * days),
        };
        Ok(Self { sink: Sink::Files(files) })
    }

    /// Writes lines until nobody has any more. It blocks.
    pub(super) fn write_all(mut self, mut lines: mpsc::Receiver<Bytes>) {
        while let Some(line) = lines.blocking_recv() {
            let written = match &mut self.sink {
                Sink::Standard => io::stdout().write_all(&line),
                Sink::Files(files) => files.write(&line),
            };
            if let Err(error) = written {
                tracing::error!(%error, "an audit event could not be written");
            }
        }
    }
}

/// Only the administrator reads it: bodies of requests may be in it.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Files {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.most {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let time = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
        let (stem, extension) = self.names();
        std::fs::rename(&self.path, self.path.with_file_name(format!("{stem}-{time}{extension}")))?;
        self.file = open(&self.path)?;
        self.size = 0;
        self.remove_old()
    }

    /// The name of the file before and after the time in names of old files.
    fn names(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension =
            self.path.extension().map_or_else(String::new, |own| format!(".{}", own.to_string_lossy()));
        (text(self.path.file_stem()), extension)
    }

    fn remove_old(&self) -> io::Result<()> {
        let (stem, extension) = self.names();
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        let mut old: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(directory.unwrap_or_else(|| Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
            if time.is_some_and(|time| time.len() == 23 && time.starts_with("20")) {
                old.push(entry.path());
            }
        }
        // The newest come first: names sort by time.
        old.sort_unstable_by(|a, b| b.cmp(a));
        let now = SystemTime::now();
        for (i, path) in old.iter().enumerate() {
            let surplus = self.max_backups > 0 && i >= self.max_backups;
            let modified = std::fs::metadata(path)?.modified()?;
            let age = now.duration_since(modified).unwrap_or_default();
            if surplus || self.max_age.is_some_and(|most| age > most) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_old_ones_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/audit.log");
        let options = AuditOptions { max_backups: 2, max_age_days: 3, ..AuditOptions::default() };
        let Sink::Files(mut files) = Log::open(&path, &options).unwrap().sink else { panic!("a file") };
        let directory = path.parent().unwrap();
        files.most = 10;
        // Old by its name and its age; one of another name is not ours.
        for name in ["audit-2020-01-01T00-00-00.000.log", "audit-note.log"] {
            std::fs::write(directory.join(name), "x").unwrap();
        }
        let long_ago = SystemTime::now() - DAY * 5;
        let old = directory.join("audit-2020-01-01T00-00-00.000.log");
        File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
        files.write(b"one line\n").unwrap();
        assert_eq!(names(directory).len(), 3);
        files.write(b"two lines\n").unwrap();
        assert!(!old.exists(), "it is too old");
        let now = names(directory);
        assert_eq!(now.len(), 3, "{now:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"two lines\n");
        for day in 2..5 {
            std::fs::write(directory.join(format!("audit-2099-01-0{day}T00-00-00.000.log")), "x").unwrap();
        }
        files.write(b"three lines\n").unwrap();
        let now = names(directory);
        let expected = [
            "audit-2099-01-03T00-00-00.000.log",
            "audit-2099-01-04T00-00-00.000.log",
            "audit-note.log",
            "audit.log",
        ];
        assert_eq!(now, expected);
    }
}
