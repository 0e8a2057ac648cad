//! A note beside fetched files that says what they are, written last: without it, or when a size differs, all is fetched
//! again, so half a download is never taken for a whole one.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

const FILE: &str = "stamp.json";

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Stamp {
    recipe: u32,
    /// What was fetched.
    pub(super) version: String,
    sizes: Vec<(String, u64)>,
}

impl Stamp {
    /// The stamp of a directory whose files are as they were written, by this recipe; these files, if they are given.
    pub(super) fn read(dir: &Path, recipe: u32, names: Option<&[String]>) -> Option<Self> {
        let stamp: Self = serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()?;
        let kept: Vec<String> = stamp.names().map(str::to_owned).collect();
        let valid = stamp.recipe == recipe
            && names.is_none_or(|names| names == kept)
            && sizes(dir, &kept).is_ok_and(|sizes| sizes == stamp.sizes);
        valid.then_some(stamp)
    }

    pub(super) fn write(dir: &Path, recipe: u32, version: &str, names: &[String]) -> Result<Self> {
        let stamp = Self {
            recipe,
            version: version.to_owned(),
            sizes: sizes(dir, names)?,
        };
        std::fs::write(dir.join(FILE), serde_json::to_vec_pretty(&stamp)?)
            .context("writing the stamp")?;
        Ok(stamp)
    }

    /// The files, relative to the directory.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.sizes.iter().map(|(name, _)| name.as_str())
    }
}

fn sizes(dir: &Path, names: &[String]) -> Result<Vec<(String, u64)>> {
    names
        .iter()
        .map(|name| {
            let data = std::fs::metadata(dir.join(name)).with_context(|| name.clone())?;
            Ok((name.clone(), data.len()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_only_while_the_files_are_as_written() {
        let dir = std::env::temp_dir().join(format!("baton-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let names = ["Image", "uio.ko"].map(str::to_owned);
        let read = |recipe| Stamp::read(&dir, recipe, Some(&names));
        assert_eq!(read(1), None);
        for name in &names {
            std::fs::write(dir.join(name), "12345").unwrap();
        }
        assert_eq!(read(1), None);
        Stamp::write(&dir, 1, "v1", &names).unwrap();
        assert_eq!(read(1).unwrap().version, "v1");
        assert_eq!(read(1).unwrap().names().collect::<Vec<_>>(), names);
        assert_eq!(read(2), None, "another recipe");
        assert_eq!(Stamp::read(&dir, 1, Some(&names[..1])), None);
        std::fs::write(dir.join("uio.ko"), "1234").unwrap();
        assert_eq!(read(1), None);
        assert_eq!(Stamp::read(&dir, 1, None), None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
