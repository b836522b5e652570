//! Which image of an index is ours: one for Linux and our architecture (image-spec, image-index.md).

use crate::error::{Error, Result, quoted};
use oci_client::manifest::ImageIndexEntry;

/// How many platforms a message names.
const NAMED_MAX: usize = 16;

/// The entry for this architecture, or an error that says for what there is one.
pub fn choose<'a>(
    entries: &'a [ImageIndexEntry],
    architecture: &str,
) -> Result<&'a ImageIndexEntry> {
    let fitting = || entries.iter().filter(|entry| fits(entry, architecture));
    // A plain build serves every machine of its architecture, a variant's may not.
    let chosen = fitting().find(|entry| !has_variant(entry)).or_else(|| fitting().next());
    chosen.ok_or_else(|| {
        let there: Vec<String> = entries.iter().filter_map(name).take(NAMED_MAX).collect();
        let there = if there.is_empty() { "nothing".into() } else { there.join(", ") };
        Error::new(format!("no image for \"linux/{architecture}\": there is {there}"))
    })
}

/// Whether it is for this architecture, or does not say.
fn fits(entry: &ImageIndexEntry, architecture: &str) -> bool {
    !is_about_another(entry)
        && entry.platform.as_ref().is_none_or(|platform| {
            platform.architecture.to_string() == architecture && platform.os.to_string() == "linux"
        })
}

fn has_variant(entry: &ImageIndexEntry) -> bool {
    let variant = entry.platform.as_ref().and_then(|platform| platform.variant.as_deref());
    variant.is_some_and(|variant| !variant.is_empty() && variant != "v8")
}

/// What documents an image (attestations) is no image.
fn is_about_another(entry: &ImageIndexEntry) -> bool {
    let kind = entry.annotations.as_ref().and_then(|all| all.get("vnd.docker.reference.type"));
    kind.is_some_and(|kind| kind == "attestation-manifest")
}

fn name(entry: &ImageIndexEntry) -> Option<String> {
    if is_about_another(entry) {
        return None;
    }
    let platform = entry.platform.as_ref()?;
    let variant = platform.variant.as_deref().filter(|variant| !variant.is_empty());
    let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    Some(quoted(&format!("{}/{}{variant}", platform.os, platform.architecture)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(platforms: &[(&str, &str, &str)]) -> Vec<ImageIndexEntry> {
        let entry = |(number, (os, architecture, variant)): (usize, &(&str, &str, &str))| {
            let text = format!(
                r#"{{"mediaType": "m", "digest": "{number}", "size": 1,
                    "platform": {{"os": "{os}", "architecture": "{architecture}", "variant": "{variant}"}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn a_plain_build_is_preferred() {
        let all = entries(&[
            ("windows", "amd64", ""),
            ("linux", "amd64", "v3"),
            ("linux", "amd64", ""),
            ("linux", "arm64", "v8"),
        ]);
        assert_eq!(choose(&all, "amd64").unwrap().digest, "2");
        assert_eq!(choose(&all, "arm64").unwrap().digest, "3");
    }

    #[test]
    fn what_there_is_is_said_when_ours_is_not_there() {
        let all =
            entries(&[("linux", "arm", "v7"), ("windows", "amd64", ""), ("x\\u001b", "y", "")]);
        let err = choose(&all, "amd64").unwrap_err().to_string();
        assert!(err.contains("\"linux/amd64\"") && err.contains("\"linux/arm/v7\""), "{err}");
        assert!(err.contains("\"windows/amd64\"") && !err.contains('\u{1b}'), "{err}");
        assert!(choose(&[], "amd64").unwrap_err().message().contains("nothing"));
    }

    #[test]
    fn an_attestation_is_no_image() {
        let text = r#"[{"mediaType": "m", "digest": "d", "size": 1,
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}]"#;
        let all: Vec<ImageIndexEntry> = serde_json::from_str(text).unwrap();
        assert!(choose(&all, "amd64").unwrap_err().message().contains("nothing"));
    }
}
