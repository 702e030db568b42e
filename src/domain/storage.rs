//! Where a folder of ours is kept, as the kernel's list of mounts tells: does it go with the container, go with the
//! pod, or outlive both?
//!
//! Pure: from the text of `/proc/self/mountinfo` and a path to an answer. Must never take storage that may outlive its
//! pod for storage that goes with it: a voter whose pod is gone would count as dead while its disk lives on. What
//! cannot be told is said to outlive.

use std::collections::BTreeSet;

use super::ids::PodUid;

/// Mounts that the kubelet makes for this very container, never for another pod's.
const OWN_MOUNT_POINTS: [&str; 2] = ["/dev/termination-log", "/etc/hosts"];

/// File systems of a container's own, writable layer.
const LAYERED: [&str; 4] = ["overlay", "aufs", "fuse.fuse-overlayfs", "fuse-overlayfs"];

/// Where a folder is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The UID of our own pod, where the mounts tell it. Not that of a static pod: the API knows it under another.
    pub pod_uid: Option<PodUid>,
    /// What the folder's life is bound to.
    pub kind: StorageKind,
}

/// What the life of a folder is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageKind {
    /// To one start of the container: each restart begins with nothing.
    ContainerLayer,
    /// To the pod: it survives a restart of the container, and no new pod.
    EmptyDir,
    /// To neither: a volume that a later pod may get again, or something that cannot be told.
    Outlives,
}

impl StorageKind {
    /// Whether it is gone for certain once its pod is.
    pub fn is_bound_to_pod(self) -> bool {
        matches!(self, Self::ContainerLayer | Self::EmptyDir)
    }
}

/// One line of mountinfo, as far as we read it.
struct Mount {
    /// What of its file system is mounted.
    root: String,
    /// Where.
    point: String,
    file_system: String,
    source: String,
}

/// Where `path` (absolute, without symbolic links) is kept, given the text of `/proc/self/mountinfo`.
pub fn locate(mountinfo: &str, path: &str) -> Storage {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(parse).collect();
    let own = own_uid(&mounts);
    // Of two mounts at one place the later one hides the other.
    let longest = mounts.iter().filter(|mount| is_within(path, &mount.point)).max_by_key(|mount| depth(&mount.point));
    let kind = longest.map_or(StorageKind::Outlives, |mount| kind(mount, own));
    Storage { pod_uid: own.filter(|uid| !is_static(uid)).map(PodUid::from), kind }
}

fn kind(mount: &Mount, own: Option<&str>) -> StorageKind {
    if mount.point == "/" {
        // Some runtimes give a container a device of its own, without layers: that we are in a pod says the same.
        let is_layer = own.is_some() || LAYERED.contains(&mount.file_system.as_str());
        return if is_layer { StorageKind::ContainerLayer } else { StorageKind::Outlives };
    }
    // An emptyDir in memory. Not a folder of a tmpfs of the node, nor one that an administrator made as a volume: that
    // one carries a name.
    if mount.file_system == "tmpfs" && mount.root == "/" && mount.source == "tmpfs" {
        return StorageKind::EmptyDir;
    }
    match in_pod(&mount.root) {
        Some((uid, rest)) if rest.starts_with("volumes/kubernetes.io~empty-dir/") => match own {
            // A hostPath into another pod's folder.
            Some(own) if own != uid && is_static(own) == is_static(uid) => StorageKind::Outlives,
            _ => StorageKind::EmptyDir,
        },
        _ => StorageKind::Outlives,
    }
}

/// The UID of our own pod: that of our own mount points if there are any, else the only one there is.
fn own_uid(mounts: &[Mount]) -> Option<&str> {
    let (mut own, mut all) = (BTreeSet::new(), BTreeSet::new());
    for mount in mounts {
        let Some((uid, _)) = in_pod(&mount.root) else { continue };
        all.insert(uid);
        if OWN_MOUNT_POINTS.contains(&mount.point.as_str()) {
            own.insert(uid);
        }
    }
    let certain = if own.is_empty() { all } else { own };
    // Several, and none is marked as ours: some are other pods' folders. That proves nothing.
    certain.first().copied().filter(|_| certain.len() == 1)
}

/// `<uid>` and `<rest>` of `.../pods/<uid>/<rest>`, if the first looks like one.
fn in_pod(path: &str) -> Option<(&str, &str)> {
    let mut rest = path;
    while let Some((_, after)) = rest.split_once("/pods/") {
        if let Some((uid, tail)) = after.split_once('/') {
            let is_uid = matches!(uid.len(), 32 | 36) && uid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
            if is_uid {
                return Some((uid, tail));
            }
        }
        // Not behind the slash: it may begin the next `/pods/`.
        rest = &rest[rest.len() - after.len() - 1..];
    }
    None
}

/// A static pod has a UID without dashes on its node, and another one in the API.
fn is_static(uid: &str) -> bool {
    uid.len() == 32
}

fn parse(line: &str) -> Option<Mount> {
    // id, parent, device, root, mount point, options, optional fields, "-", type, source, options
    let mut fields = line.split(' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    let mut behind = fields.skip_while(|field| *field != "-").skip(1);
    let (file_system, source) = (behind.next()?, behind.next().unwrap_or_default());
    Some(Mount {
        root: unescape(root),
        point: unescape(point),
        file_system: file_system.to_owned(),
        source: unescape(source),
    })
}

/// The kernel writes a blank, a tab, a newline and a backslash as three octal digits.
fn unescape(field: &str) -> String {
    const ESCAPES: [(&str, &str); 4] = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    if !field.contains('\\') {
        return field.to_owned();
    }
    // The backslash last, so that no unescaped one is taken for the beginning of an escape.
    ESCAPES.iter().fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

fn depth(point: &str) -> usize {
    parts(point).count()
}

fn is_within(path: &str, point: &str) -> bool {
    let mut path = parts(path);
    parts(point).all(|part| path.next() == Some(part))
}

#[cfg(test)]
mod tests;
