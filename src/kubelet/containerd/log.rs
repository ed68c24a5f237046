//! containerd's log. It writes to the file itself, so that its output survives us; rotation therefore copies and empties.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use tracing::warn;

/// A log longer than this is put aside; one older log is kept.
const LONGEST: u64 = 10 << 20;

/// Puts the log aside when it has become long.
pub(super) fn rotate(log: &Path) {
    if let Err(error) = rotate_beyond(log, LONGEST) {
        warn!(%error, log = %log.display(), "log not rotated");
    }
}

fn rotate_beyond(log: &Path, longest: u64) -> io::Result<()> {
    match fs::metadata(log) {
        Ok(metadata) if metadata.len() > longest => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::copy(log, log.with_extension("log.1"))?;
    // The writer appends, so that it goes on at the new end.
    OpenOptions::new().write(true).open(log)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_put_aside_and_the_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("containerd.log");
        rotate_beyond(&log, 5).unwrap();
        let mut writer = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        writer.write_all(b"short").unwrap();
        rotate_beyond(&log, 5).unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"short");
        writer.write_all(b"er").unwrap();
        rotate_beyond(&log, 5).unwrap();
        writer.write_all(b"next").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"next");
        assert_eq!(fs::read(dir.path().join("containerd.log.1")).unwrap(), b"shorter");
    }
}
