//! The images that a Node lists.

use k8s_openapi::api::core::v1::ContainerImage;

use crate::cri::v1;

const MAX_NAMES: usize = 5;

/// The largest images, largest first, and no more than `most`.
pub fn list(mut images: Vec<v1::Image>, most: usize) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images
        .into_iter()
        .filter_map(|image| {
            let mut names = image.repo_digests;
            names.extend(image.repo_tags);
            names.truncate(MAX_NAMES);
            (!names.is_empty())
                .then(|| ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() })
        })
        .take(most)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_nameless_ones_do_not_count() {
        let image = |id: &str, size, tags: &[&str]| v1::Image {
            id: id.into(),
            size,
            repo_tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            ..v1::Image::default()
        };
        let mut all: Vec<v1::Image> = (0..60).map(|i| image(&format!("i{i}"), i, &["t"])).collect();
        all.push(image("none", 1000, &[]));
        let got = list(all, 50);
        assert_eq!((got.len(), got[0].size_bytes), (50, Some(59)));
    }
}
