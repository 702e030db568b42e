//! Rules that several sections share.

use super::lenient::{Context, Section, Setting};
use super::names::{MOUNT_ACCEPTED, mount_path};

/// A mount path; a problem where it is none.
pub(super) fn mount(setting: &Setting<String>, cx: &mut Context<'_>) -> Option<String> {
    let path = mount_path(&setting.value);
    if path.is_none() {
        cx.problem(&setting.spot, MOUNT_ACCEPTED);
    }
    path
}

/// Mount paths; a problem for each that is none.
pub(super) fn mounts(settings: &[Setting<String>], cx: &mut Context<'_>) -> Vec<String> {
    settings.iter().filter_map(|setting| mount(setting, cx)).collect()
}

/// Two keys that make sense together only.
pub(super) fn check_pair(
    section: &Section<'_>,
    [left, right]: [(&str, &Option<Setting<String>>); 2],
    cx: &mut Context<'_>,
) {
    let (set, missing) = match (left.1, right.1) {
        (Some(set), None) => (set, right.0),
        (None, Some(set)) => (set, left.0),
        _ => return,
    };
    cx.problem(&set.spot, format!("needs {} to be set as well", section.key(missing)));
}
