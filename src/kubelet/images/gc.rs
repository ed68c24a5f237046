//! Which images to remove when the disk fills up: unused ones, largest saving last used first.

use std::collections::HashSet;

use crate::cri::v1;

/// Ids of images to remove to free `bytes`, given the images in use (ids and names).
pub fn plan(images: &[v1::Image], used: &HashSet<String>, bytes: u64) -> Vec<String> {
    let in_use = |image: &v1::Image| {
        used.contains(&image.id)
            || image.repo_tags.iter().chain(&image.repo_digests).any(|name| used.contains(name))
    };
    let mut unused: Vec<&v1::Image> = images.iter().filter(|i| !i.pinned && !in_use(i)).collect();
    unused.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let mut freed = 0;
    let mut out = Vec::new();
    for image in unused {
        if freed >= bytes {
            break;
        }
        freed += image.size;
        out.push(image.id.clone());
    }
    out
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

    #[test]
    fn only_what_is_needed_and_unused_goes() {
        let mut pinned = image("pause", 900);
        pinned.pinned = true;
        let all = [image("a", 10), image("b", 50), image("c", 30), image("d", 99), pinned];
        let used: HashSet<String> = ["d:1".to_owned()].into();
        assert_eq!(plan(&all, &used, 60), ["b", "c"]);
        assert!(plan(&all, &used, 0).is_empty());
    }

    #[test]
    fn marks_decide_how_much() {
        assert_eq!(excess(1000, 200, (85, 80)), None);
        assert_eq!(excess(1000, 100, (85, 80)), Some(100));
        assert_eq!(excess(0, 0, (85, 80)), None);
    }
}
