//! A case, and the check that no recording is left out.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::vectors::{self, Section};
use crate::world::World;

type Run = Box<dyn FnOnce(&'static World) -> LocalBoxFuture<'static, Result<()>> + Send>;

/// What is checked, and which sections of the recordings that covers.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) covers: Vec<Section>,
    pub(crate) run: Run,
}

impl Case {
    /// A case of our own.
    pub(crate) fn new<F, Fut>(name: impl Into<String>, covers: Vec<Section>, run: F) -> Self
    where
        F: FnOnce(&'static World) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        Self { name: name.into(), covers, run: Box::new(move |world| run(world).boxed_local()) }
    }

    /// A case for one section.
    pub(crate) fn of<F, Fut>(section: Section, run: F) -> Self
    where
        F: FnOnce(&'static World) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        Self::new(format!("{}: {}", section.file, section.title), vec![section], run)
    }
}

/// Fails when a recording, or a section of one, has no case.
pub(crate) fn nothing_is_left_out(covered: &BTreeSet<(&str, &str)>) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/vectors");
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name();
        let is_known = vectors::FILES.iter().any(|(file, _)| name == **file);
        ensure!(is_known, "{} is in no list of tests/compat/vectors.rs", name.display());
    }
    let all = vectors::FILES.iter().flat_map(|(file, _)| vectors::sections(file));
    let left: Vec<_> = all.filter(|s| !covered.contains(&(s.file, s.title))).map(|s| (s.file, s.title)).collect();
    ensure!(left.is_empty(), "sections without a case: {left:#?}");
    Ok(())
}
