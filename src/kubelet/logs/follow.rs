//! Streams a log file to a client, following it through rotations while its container runs.
//!
//! Waiting is done by inotify on the directory, so an idle log costs nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use super::read::{Formatter, Options, tail_start};

const CHUNK: usize = 64 * 1024;

/// Sends the log to `out` until its end, the limit, or the client's leaving. `running` tells whether more may come.
pub async fn stream(
    path: PathBuf,
    options: Options,
    mut running: watch::Receiver<bool>,
    out: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let notify = if options.follow { Some(Changes::of(&path)?) } else { None };
    let mut file = File::open(&path)?;
    if let Some(lines) = options.tail {
        let start = tail_start(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
    }
    let mut formatter = Formatter::new(options);
    loop {
        // Read once more after the container has ended, for what it wrote last.
        let last_round = !*running.borrow_and_update();
        if !drain(&mut file, &mut formatter, &out).await? {
            return Ok(());
        }
        let Some(notify) = &notify else { return Ok(()) };
        if let Some(newer) = reopened(&file, &path)? {
            drain(&mut file, &mut formatter, &out).await?;
            file = newer;
            continue;
        }
        if last_round {
            return Ok(());
        }
        tokio::select! {
            changed = notify.changed() => changed?,
            alive = running.changed() => if alive.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

/// Sends what the file holds beyond the present position; false when nothing more is wanted.
async fn drain(file: &mut File, formatter: &mut Formatter, out: &mpsc::Sender<Bytes>) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(!formatter.full());
        }
        let text = formatter.feed(&buffer[..length]);
        if !text.is_empty() && out.send(Bytes::from(text)).await.is_err() {
            return Ok(false);
        }
        if formatter.full() {
            return Ok(false);
        }
    }
}

/// The file that now has the name, when it is another one than the open one.
fn reopened(open: &File, path: &Path) -> io::Result<Option<File>> {
    let newer = match File::open(path) {
        Ok(file) => file,
        // Between the rename and the runtime's new file there is none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((newer.metadata()?.ino() != open.metadata()?.ino()).then_some(newer))
}

/// Changes in a log's directory. To the reactor an inotify instance is like a pipe that becomes readable.
struct Changes(pipe::Receiver);

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let directory = path.parent().unwrap_or(path);
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(directory, flags)?;
        let descriptor = inotify.as_fd().try_clone_to_owned()?;
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(descriptor)?))
    }

    async fn changed(&self) -> io::Result<()> {
        self.0.readable().await?;
        // Which events came does not matter: the file is looked at again.
        let mut events = [0; 4096];
        loop {
            match self.0.try_read(&mut events) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn line(text: &str) -> String {
        format!("2026-01-01T00:00:00Z stdout F {text}\n")
    }

    async fn expect(rx: &mut mpsc::Receiver<Bytes>, want: &str) {
        let got = rx.recv().await.unwrap();
        assert_eq!(std::str::from_utf8(&got).unwrap(), want);
    }

    #[tokio::test]
    async fn following_sees_new_lines_rotation_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, line("one")).unwrap();
        let (alive_tx, alive) = watch::channel(true);
        let (tx, mut rx) = mpsc::channel(8);
        let options = Options { follow: true, ..Options::default() };
        let task = tokio::spawn(stream(path.clone(), options, alive, tx));
        expect(&mut rx, "one\n").await;

        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(line("two").as_bytes()).unwrap();
        expect(&mut rx, "two\n").await;

        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        std::fs::write(&path, line("three")).unwrap();
        expect(&mut rx, "three\n").await;

        alive_tx.send(false).unwrap();
        assert!(rx.recv().await.is_none());
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn without_follow_the_stream_ends_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, line("one") + &line("two")).unwrap();
        let (tx, mut rx) = mpsc::channel(8);
        let (_alive, alive) = watch::channel(true);
        let options = Options { tail: Some(1), ..Options::default() };
        stream(path, options, alive, tx).await.unwrap();
        expect(&mut rx, "two\n").await;
        assert!(rx.recv().await.is_none());
    }
}
