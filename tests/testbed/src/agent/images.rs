//! The image table: which local program stands for an image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};

/// A local program that is run in place of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) path: Option<String>,
    pub(crate) files: Vec<(PathBuf, String)>,
}

impl Image {
    /// This program, seen in the container as `/<its file name>`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }

    /// Arguments where the pod gives none (CMD).
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, arguments: I) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// A variable that the image sets (ENV).
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Where the program is in the container. Not under /usr, /bin, /lib: these are the machine's.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.path = Some(path.into());
        self
    }

    /// A further file or folder of this machine, read-only, at a path of the container.
    #[must_use]
    pub fn file(mut self, source: impl Into<PathBuf>, path: &str) -> Self {
        self.files.push((source.into(), path.into()));
        self
    }

    /// The program's path in the container.
    pub(crate) fn entry_point(&self) -> String {
        self.path.clone().unwrap_or_else(|| {
            let name = self.program.file_name().unwrap_or_default();
            format!("/{}", name.to_string_lossy())
        })
    }
}

/// Image names and what stands for them.
#[derive(Clone, Debug, Default)]
pub struct Images(BTreeMap<String, Image>);

impl Images {
    /// Adds one, under its full reference or its name without a tag.
    pub fn add(&mut self, name: &str, image: Image) -> Result<()> {
        ensure!(image.program.is_file(), "image {name}: there is no program {}", image.program.display());
        self.0.insert(name.to_owned(), image);
        Ok(())
    }

    /// The image of a pod's spec: by the reference as written, else without tag and digest.
    pub(crate) fn find(&self, reference: &str) -> Option<&Image> {
        self.0.get(reference).or_else(|| self.0.get(without_tag(reference)))
    }
}

/// `registry:5000/name:tag@sha256:…` is `registry:5000/name`.
fn without_tag(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_are_optional() {
        assert_eq!(without_tag("a/b:1.2"), "a/b");
        assert_eq!(without_tag("host:5000/a"), "host:5000/a");
        assert_eq!(without_tag("host:5000/a:1@sha256:ff"), "host:5000/a");
        assert_eq!(without_tag("a"), "a");
    }

    #[test]
    fn a_full_reference_wins_over_the_name() {
        let mut images = Images::default();
        images.add("a", Image::new("/bin/sh")).unwrap();
        images.add("a:2", Image::new("/bin/sh").at("/two")).unwrap();
        assert_eq!(images.find("a:1").unwrap().entry_point(), "/sh");
        assert_eq!(images.find("a:2").unwrap().entry_point(), "/two");
        assert!(images.find("b").is_none());
    }

    #[test]
    fn a_missing_program_is_refused() {
        let error = Images::default().add("a", Image::new("/no/such")).unwrap_err();
        assert!(error.to_string().contains("/no/such"));
    }
}
