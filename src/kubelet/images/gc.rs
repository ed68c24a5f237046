//! Which images to remove when the disk fills up, or when nobody has used them for long: those first whose last use is
//! longest ago, as upstream. An image that is new here is left alone for a while, since its pod may still be starting.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::cri::v1;

/// Since when images are known, and when they were last seen in use.
#[derive(Debug, Default)]
pub struct Ages {
    since: Option<Timestamp>,
    known: HashMap<String, Age>,
}

#[derive(Clone, Copy, Debug)]
struct Age {
    first: Timestamp,
    used: Option<Timestamp>,
}

/// What is asked of the images of a node at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The images.
    pub images: &'a [v1::Image],
    /// Ids and names of those in use.
    pub used: &'a HashSet<String>,
    /// The time.
    pub now: Timestamp,
    /// An unused image is kept for the first time, and no longer than the second unless that is zero.
    pub ages: (Duration, Duration),
}

impl Ask<'_> {
    fn in_use(&self, image: &v1::Image) -> bool {
        self.used.contains(&image.id)
            || image.repo_tags.iter().chain(&image.repo_digests).any(|name| self.used.contains(name))
    }
}

impl Ages {
    /// Notes which images there are and which of them are used.
    pub fn note(&mut self, ask: Ask<'_>) {
        self.since.get_or_insert(ask.now);
        let former = std::mem::take(&mut self.known);
        for image in ask.images {
            let mut age = former.get(&image.id).copied().unwrap_or(Age { first: ask.now, used: None });
            if ask.in_use(image) {
                age.used = Some(ask.now);
            }
            self.known.insert(image.id.clone(), age);
        }
    }

    /// Ids of images to remove to free `bytes`, and of those that were not used for too long.
    pub fn plan(&self, ask: Ask<'_>, bytes: u64) -> Vec<String> {
        let (least, most) = ask.ages;
        let passed = |at: Timestamp| Duration::try_from(ask.now.duration_since(at)).unwrap_or_default();
        let mut unused: Vec<(&v1::Image, Age)> = ask
            .images
            .iter()
            .filter(|image| !image.pinned && !ask.in_use(image))
            .filter_map(|image| self.known.get(&image.id).map(|age| (image, *age)))
            .collect();
        unused.sort_by_key(|(image, age)| {
            (age.used, age.first, std::cmp::Reverse(image.size), image.id.clone())
        });
        // What was used before the kubelet started is not known until it has run for that long itself.
        let long_enough = self.since.is_some_and(|since| passed(since) > most);
        let (mut freed, mut out) = (0, Vec::new());
        for (image, age) in unused {
            let old = !most.is_zero() && long_enough && passed(age.used.unwrap_or(age.first)) > most;
            if old || (freed < bytes && passed(age.first) >= least) {
                freed += image.size;
                out.push(image.id.clone());
            }
        }
        out
    }
}

/// Bytes to free so that use falls to the low mark, when it is above the high one (percent).
pub fn excess(capacity: u64, available: u64, (high, low): (u8, u8)) -> Option<u64> {
    if capacity == 0 {
        return None;
    }
    let used = capacity.saturating_sub(available);
    let percent = used.saturating_mul(100) / capacity;
    (percent >= u64::from(high)).then(|| used.saturating_sub(capacity / 100 * u64::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, size: u64) -> v1::Image {
        v1::Image { id: id.into(), size, repo_tags: vec![format!("{id}:1")], ..v1::Image::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Notes at these times which images are there and used, then plans at the last one.
    fn planned(history: &[(i64, &[v1::Image], &str)], ages: (u64, u64), bytes: u64) -> Vec<String> {
        let ages = (Duration::from_secs(ages.0), Duration::from_secs(ages.1));
        let mut known = Ages::default();
        let mut plan = Vec::new();
        for (now, images, used) in history {
            let used: HashSet<String> = used.split(' ').map(str::to_owned).collect();
            let ask = Ask { images, used: &used, now: at(*now), ages };
            known.note(ask);
            plan = known.plan(ask, bytes);
        }
        plan
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_no_more_than_needed() {
        let mut pinned = image("pause", 900);
        pinned.pinned = true;
        let all = [image("a", 10), image("b", 50), image("c", 30), image("d", 99), pinned];
        let history: [(i64, &[v1::Image], &str); 3] =
            [(0, &all, "c:1 d:1"), (10, &all, "b:1 d:1"), (500, &all, "d:1")];
        assert_eq!(planned(&history, (120, 0), 60), ["a", "c", "b"]);
        assert_eq!(planned(&history, (120, 0), 40), ["a", "c"]);
        assert!(planned(&history, (120, 0), 0).is_empty());
    }

    #[test]
    fn a_new_image_is_left_alone_for_a_while() {
        let all = [image("old", 10), image("new", 10)];
        let history: [(i64, &[v1::Image], &str); 2] = [(0, &all[..1], ""), (200, &all, "")];
        assert_eq!(planned(&history, (120, 0), u64::MAX), ["old"]);
        assert_eq!(planned(&history, (0, 0), u64::MAX), ["old", "new"]);
    }

    #[test]
    fn an_image_that_nobody_uses_for_long_goes_without_need() {
        let all = [image("used", 10), image("idle", 10)];
        let history: [(i64, &[v1::Image], &str); 2] = [(0, &all, "used:1"), (50, &all, "used:1")];
        assert!(planned(&history, (0, 100), 0).is_empty(), "not yet known for that long");
        let later: [(i64, &[v1::Image], &str); 2] = [(0, &all, "used:1"), (101, &all, "used:1")];
        assert_eq!(planned(&later, (0, 100), 0), ["idle"]);
        assert!(planned(&later, (0, 0), 0).is_empty(), "zero is never");
    }

    #[test]
    fn marks_decide_how_much() {
        assert_eq!(excess(1000, 200, (85, 80)), None);
        assert_eq!(excess(1000, 100, (85, 80)), Some(100));
        assert_eq!(excess(0, 0, (85, 80)), None);
    }
}
