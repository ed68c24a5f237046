//! One line of a CRI log file: `<time> <stream> <tags> <content>`.

use jiff::Timestamp;

/// A parsed line.
#[derive(Debug, PartialEq)]
pub struct Entry<'a> {
    /// The time as it is written.
    pub time: &'a str,
    /// Standard error rather than standard output.
    pub stderr: bool,
    /// The line goes on in the next entry.
    pub partial: bool,
    /// The text, without line end.
    pub content: &'a [u8],
}

/// Parses a line without its line end; `None` when it has another form.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let (time, rest) = word(line)?;
    let (stream, rest) = word(rest)?;
    let (tags, content) = word(rest).unwrap_or((rest, b""));
    let time = std::str::from_utf8(time).ok()?;
    let stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = tags.split(|b| *b == b':').next() == Some(b"P");
    Some(Entry { time, stderr, partial, content })
}

fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

impl Entry<'_> {
    /// The time, when it is one.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        for (line, want) in [
            ("2026-01-01T00:00:00.1Z stdout F hello world", Some((false, false, "hello world"))),
            ("2026-01-01T00:00:00.1Z stderr P part", Some((true, true, "part"))),
            ("2026-01-01T00:00:00.1Z stdout F ", Some((false, false, ""))),
            ("2026-01-01T00:00:00.1Z stdout P:x y", Some((false, true, "y"))),
            ("2026-01-01T00:00:00.1Z stdin F x", None),
            ("garbage", None),
        ] {
            let got = parse(line.as_bytes());
            let got = got.map(|e| (e.stderr, e.partial, std::str::from_utf8(e.content).unwrap()));
            assert_eq!(got, want, "{line}");
        }
    }

    #[test]
    fn times_with_offsets_are_times() {
        let entry = parse(b"2026-01-01T01:00:00.5+01:00 stdout F x").unwrap();
        assert_eq!(entry.timestamp().unwrap().to_string(), "2026-01-01T00:00:00.5Z");
    }
}
