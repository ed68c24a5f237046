//! From CRI log lines to what a client asked to see.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use jiff::Timestamp;

use super::parse::parse;

/// Which lines a client wants, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Go on as the container writes.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Only lines since this time.
    pub since: Option<Timestamp>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only one of the two streams: `Some(true)` is standard error.
    pub stderr: Option<bool>,
}

/// Turns the bytes of a log file into what the client sees, piece by piece.
#[derive(Debug)]
pub struct Formatter {
    options: Options,
    pending: Vec<u8>,
    written: u64,
    /// The former entry of the stream was partial, so the next one goes on the same line.
    mid_line: bool,
}

/// A line longer than this is passed on in parts rather than kept.
const LONGEST_LINE: usize = 1 << 20;

impl Formatter {
    /// A formatter for one request.
    pub fn new(options: Options) -> Self {
        Self { options, pending: Vec::new(), written: 0, mid_line: false }
    }

    /// Takes bytes of the file and returns what they add to the answer.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        self.pending.extend_from_slice(bytes);
        let mut start = 0;
        let pending = std::mem::take(&mut self.pending);
        while let Some(length) = pending[start..].iter().position(|b| *b == b'\n') {
            self.line(&pending[start..start + length], &mut out);
            start += length + 1;
        }
        if pending.len() - start > LONGEST_LINE {
            self.line(&pending[start..], &mut out);
            start = pending.len();
        }
        self.pending = pending[start..].to_vec();
        self.limited(out)
    }

    /// The limit has been reached; nothing more will come.
    pub fn full(&self) -> bool {
        self.options.limit_bytes.is_some_and(|limit| self.written >= limit)
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = parse(line) else { return };
        if self.options.stderr.is_some_and(|wanted| wanted != entry.stderr) {
            return;
        }
        if let Some(since) = self.options.since
            && entry.timestamp().is_some_and(|t| t < since)
        {
            return;
        }
        if self.options.timestamps && !self.mid_line {
            out.extend_from_slice(entry.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(entry.content);
        if !entry.partial {
            out.push(b'\n');
        }
        self.mid_line = entry.partial;
    }

    fn limited(&mut self, mut out: Vec<u8>) -> Vec<u8> {
        if let Some(limit) = self.options.limit_bytes {
            let left = usize::try_from(limit.saturating_sub(self.written)).unwrap_or(usize::MAX);
            out.truncate(left);
        }
        self.written += out.len() as u64;
        out
    }
}

/// Where the last `lines` lines of a file begin.
pub fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let length = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(length);
    }
    let (mut end, mut seen) = (length, 0);
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (i, byte) in block.iter().enumerate().rev() {
            let at = start + i as u64;
            // The end of the last line does not begin another one.
            if *byte == b'\n' && at + 1 != length {
                seen += 1;
                if seen == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n\
                       2026-01-01T00:00:02Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n";

    fn shown(options: Options) -> String {
        String::from_utf8(Formatter::new(options).feed(LOG.as_bytes())).unwrap()
    }

    #[test]
    fn options_select_and_shape_lines() {
        let base = Options::default;
        assert_eq!(shown(base()), "one\ntwo\nthree\n");
        assert_eq!(shown(Options { stderr: Some(true), ..base() }), "two\n");
        assert_eq!(shown(Options { limit_bytes: Some(5), ..base() }), "one\nt");
        assert_eq!(shown(Options { since: "2026-01-01T00:00:03Z".parse().ok(), ..base() }), "three\n");
        assert_eq!(
            shown(Options { timestamps: true, ..base() }),
            "2026-01-01T00:00:01Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n"
        );
    }

    #[test]
    fn lines_may_come_in_pieces() {
        let mut formatter = Formatter::new(Options::default());
        let mut out = Vec::new();
        for byte in LOG.as_bytes().chunks(7) {
            out.extend(formatter.feed(byte));
        }
        assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn the_tail_begins_after_the_right_line_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"a\nbb\nccc\n").unwrap();
        for (lines, start) in [(0, 9), (1, 5), (2, 2), (3, 0), (9, 0)] {
            assert_eq!(tail_start(&mut file, lines).unwrap(), start, "{lines}");
        }
        file.write_all(b"open").unwrap();
        assert_eq!(tail_start(&mut file, 1).unwrap(), 9);
    }
}
