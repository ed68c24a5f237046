//! Tells when something has appeared in a directory, or has gone from it.

use std::io;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;
use tokio::net::unix::pipe::Receiver;

/// Files that were finished in, moved into or taken out of a directory since the last look.
pub struct Changes {
    inotify: Inotify,
    ready: Receiver,
}

impl Changes {
    /// Starts watching; makes the directory if need be.
    ///
    /// # Errors
    /// The directory cannot be made or watched.
    pub fn of(directory: &Path) -> io::Result<Self> {
        Self::with(directory, AddWatchFlags::empty())
    }

    /// Sees what is made there as well, such as sockets, which nobody closes after writing.
    ///
    /// # Errors
    /// The directory cannot be made or watched.
    pub fn and_creations(directory: &Path) -> io::Result<Self> {
        Self::with(directory, AddWatchFlags::IN_CREATE)
    }

    fn with(directory: &Path, more: AddWatchFlags) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let appear = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
        let vanish = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        inotify.add_watch(directory, appear | vanish | more)?;
        // A pipe's end is the one descriptor that tokio watches without `unsafe`; only its readiness is used here.
        let ready = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inotify, ready })
    }

    /// Waits for a change; changes that came in the meantime count as one.
    ///
    /// # Errors
    /// The kernel does not say any more.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            self.ready.readable().await?;
            match self.inotify.read_events() {
                Ok(events) if !events.is_empty() => return Ok(()),
                Ok(_) => {}
                Err(nix::errno::Errno::EAGAIN) => self.clear_readiness(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// tokio takes a descriptor for ready until a read through it says otherwise.
    fn clear_readiness(&self) {
        drop(self.ready.try_read(&mut []));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_file_written_or_moved_there_is_a_change_and_one_elsewhere_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        let mut changes = Changes::of(&images).unwrap();
        let limit = Duration::from_secs(20);
        for _ in 0..2 {
            std::fs::write(images.join("a.tar"), "x").unwrap();
            tokio::time::timeout(limit, changes.next()).await.unwrap().unwrap();
            std::fs::write(dir.path().join("b.tar"), "x").unwrap();
            let quiet = tokio::time::timeout(Duration::from_millis(20), changes.next()).await;
            assert!(quiet.is_err(), "{quiet:?}");
            std::fs::rename(dir.path().join("b.tar"), images.join("b.tar")).unwrap();
            tokio::time::timeout(limit, changes.next()).await.unwrap().unwrap();
            std::fs::remove_file(images.join("b.tar")).unwrap();
            tokio::time::timeout(limit, changes.next()).await.unwrap().unwrap();
        }
    }
}
