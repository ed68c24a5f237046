//! Lists of indexes such as `1,3-5,7`, as the status and the policies of Jobs write them.

use crate::api::field::go_quote;

/// How many indexes the list has; what is wrong with it otherwise.
pub(super) fn count(text: &str, completions: i32) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last) = (0, None);
    for part in text.split(',') {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(i32::try_from(total).unwrap_or(i32::MAX))
}

/// The first index that both lists have; what is no interval is passed over.
pub(super) fn overlap(a: &str, b: &str, completions: i32) -> Option<i64> {
    let parsed = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (a, b) = (parsed(a), parsed(b));
    let (mut i, mut j) = (0, 0);
    while let (Some((a_first, a_end)), Some((b_first, b_end))) = (a.get(i), b.get(j)) {
        if a_first <= b_end && b_first <= a_end {
            return Some(*a_first.max(b_first));
        }
        if a_first <= b_first {
            i += 1;
        } else {
            j += 1;
        }
    }
    None
}

fn interval(text: &str, completions: i32) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = text.split('-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            go_quote(text)
        ));
    }
    let number = |text: &str| {
        let quoted = go_quote(text);
        let number: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {quoted}"))?;
        if number >= completions.into() { Err(format!("too large index: {quoted}")) } else { Ok(number) }
    };
    let first = number(limits[0])?;
    let Some(end) = limits.get(1) else { return Ok((first, first)) };
    let end = number(end)?;
    if first >= end {
        return Err(format!("non-increasing order, previous: {first}, current: {end}"));
    }
    Ok((first, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted_or_refused() {
        for (text, expected) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("1,3-5,7", Ok(5)),
            ("3,1", Err("non-increasing order, previous: 3, current: 1")),
            ("5-3", Err("non-increasing order, previous: 5, current: 3")),
            ("8", Err("too large index: \"8\"")),
            ("x", Err("cannot convert string to integer for index: \"x\"")),
            ("1-2-3", Err("the fragment \"1-2-3\" violates the requirement")),
        ] {
            match (count(text, 8), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn lists_overlap_where_both_have_an_index() {
        assert_eq!(overlap("0-2,5", "3-4,6", 8), None);
        assert_eq!(overlap("0-2,5", "3-5", 8), Some(5));
        assert_eq!(overlap("x,1", "1", 8), Some(1));
        assert_eq!(overlap("", "1", 8), None);
    }
}
