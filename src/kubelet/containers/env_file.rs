//! Files of variables that an init container has left in an emptyDir (`fileKeyRef`): `NAME='value'`, one after the other.
//!
//! The form is a subset of what a POSIX shell reads: values are in single quotes and taken as they are, also over several
//! lines; lines that are blank or begin with `#` do not count.

/// The value of a variable; `None` when the file does not define it. The error says in which line the file is wrong.
pub fn find(text: &str, wanted: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let wrong = |why: &str| format!("invalid environment variable format at line {number}: {why}");
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("missing '='"))?;
        if name.is_empty() {
            return Err(wrong("empty variable name"));
        }
        if name.ends_with([' ', '\t']) {
            return Err(wrong("whitespace before '=' is not allowed"));
        }
        let value = match value.strip_prefix('\'') {
            // To a shell this is an empty value, and a command after it.
            None if value.starts_with([' ', '\t']) => String::new(),
            None => return Err(wrong("value must be enclosed in single quotes")),
            Some(rest) => quoted(rest, &mut lines).map_err(|why| wrong(&why))?,
        };
        if name == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Reads up to the closing quote, over as many lines as it takes.
fn quoted<'a>(first: &'a str, lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Result<String, String> {
    let mut value = String::new();
    let mut rest = first;
    loop {
        if let Some((end, after)) = rest.split_once('\'') {
            value.push_str(end);
            let after = after.trim_start_matches([' ', '\t']);
            let ended = after.is_empty() || after.starts_with('#');
            return if ended { Ok(value) } else { Err("unexpected content after closing quote".to_owned()) };
        }
        value.push_str(rest);
        value.push('\n');
        rest = lines.next().ok_or("unclosed single quote")?.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_stands_between_single_quotes() {
        let text = "# words\n\n  A='one two' # first\nB='$A \"x\"\\n'\nC='1\n2'\nD= 'x'\n";
        for (name, value) in [
            ("A", Some("one two")),
            ("B", Some("$A \"x\"\\n")),
            ("C", Some("1\n2")),
            ("D", Some("")),
            ("E", None),
        ] {
            assert_eq!(find(text, name).unwrap().as_deref(), value, "{name}");
        }
    }

    #[test]
    fn other_forms_are_refused_with_their_line() {
        for (text, why) in [
            ("A", "line 1: missing '='"),
            ("='x'", "line 1: empty variable name"),
            ("\nA ='x'", "line 2: whitespace before '='"),
            ("A=x", "line 1: value must be enclosed"),
            ("A='x", "line 1: unclosed single quote"),
            ("A='x'y", "line 1: unexpected content"),
        ] {
            assert!(find(text, "Z").unwrap_err().contains(why), "{text}");
        }
    }
}
