//! Which pod this is, as far as it can be proven, and whether a push is meant for another one.
//!
//! Must never: take a difference that proves nothing for a proof. A pod that refuses its own push never starts.

use std::collections::BTreeSet;
use std::io::Read as _;

use wire::Push;

/// The kernel's list of our mounts; the kubelet's paths in it carry the pod's UID.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// More than a pod with a thousand mounts has.
const MOUNTINFO_BYTES_MAX: u64 = 1 << 20;

/// Mounts that the kubelet makes for this very container, never for another pod's.
const OWN_MOUNT_POINTS: [&str; 2] = ["/dev/termination-log", "/etc/hosts"];

/// What the pod's spec says by the downward API: POD_NAME, POD_NAMESPACE and POD_UID.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) uid: Option<String>,
}

impl Identity {
    /// The proof, in words, that `push` is meant for another pod. `None`: it is ours, or nobody can tell.
    pub(crate) fn proof_against(&self, push: &Push) -> Option<String> {
        self.proof_with(push, || {
            let mut text = String::new();
            let file = std::fs::File::open(MOUNTINFO).ok()?;
            file.take(MOUNTINFO_BYTES_MAX).read_to_string(&mut text).ok()?;
            Some(text)
        })
    }

    fn proof_with(&self, push: &Push, mountinfo: impl FnOnce() -> Option<String>) -> Option<String> {
        for (what, variable, own, named) in [
            ("pod", "POD_NAME", &self.name, &push.pod_name),
            ("namespace", "POD_NAMESPACE", &self.namespace, &push.pod_namespace),
        ] {
            if let (Some(own), Some(named)) = (own, named)
                && own != named
            {
                return Some(format!("it names {what} {named}, and {variable} is {own}"));
            }
        }
        let named = push.pod_uid.as_deref()?;
        if let Some(own) = &self.uid {
            return differ(own, named).then(|| format!("it names pod UID {named}, and POD_UID is {own}"));
        }
        let uids = uids(&mountinfo()?);
        let differs = !uids.is_empty() && uids.iter().all(|own| differ(own, named));
        differs.then(|| {
            let own: Vec<_> = uids.into_iter().collect();
            format!("it names pod UID {named}, and this pod's mounts belong to {}", own.join(", "))
        })
    }
}

/// Whether two UIDs are of different pods for certain. A static pod has one UID on its node (32 hex digits) and
/// another one in the API, so those two kinds cannot be compared.
fn differ(own: &str, named: &str) -> bool {
    let of_static_pod = |uid: &str| uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit());
    own != named && of_static_pod(own) == of_static_pod(named)
}

/// The pod UIDs in a mountinfo: those of our own mount points if there are any, else the only one there is.
fn uids(mountinfo: &str) -> BTreeSet<String> {
    let mut own = BTreeSet::new();
    let mut all = BTreeSet::new();
    for line in mountinfo.lines() {
        // id, parent, device, root, mount point, options, optional fields, "-", type, source, options
        let mut fields = line.split(' ');
        let (Some(root), Some(point)) = (fields.nth(3), fields.next()) else {
            continue;
        };
        let source = fields.skip_while(|field| *field != "-").nth(2);
        for uid in [Some(root), source].into_iter().flatten().filter_map(uid_in) {
            all.insert(uid.to_owned());
            if OWN_MOUNT_POINTS.contains(&point) {
                own.insert(uid.to_owned());
            }
        }
    }
    if !own.is_empty() {
        return own;
    }
    // Several, and none of them is marked as ours: some are other pods' directories. That proves nothing.
    if all.len() == 1 { all } else { BTreeSet::new() }
}

/// The `<uid>` of `.../pods/<uid>/...`, if it looks like one.
fn uid_in(path: &str) -> Option<&str> {
    let mut parts = path.split('/');
    while let Some(part) = parts.next() {
        if part == "pods" {
            let uid = parts.clone().next()?;
            let is_uid = matches!(uid.len(), 32 | 36) && uid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
            if is_uid {
                return Some(uid);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0b1c9ee3-7b3c-4c5e-9d0f-1b2a3c4d5e6f";
    const B: &str = "ffffffff-7b3c-4c5e-9d0f-1b2a3c4d5e6f";
    const STATIC: &str = "0123456789abcdef0123456789abcdef";

    fn push(name: &str, namespace: &str, uid: &str) -> Push {
        let body = format!(
            r#"{{"token":"t","creationTime":"2026-11-23T13:57:34Z","vaultAddr":"v","podName":"{name}","podNamespace":"{namespace}","podUID":"{uid}"}}"#
        );
        Push::decode(body.as_bytes()).ok().unwrap()
    }

    fn mounts(lines: &[(&str, &str)]) -> String {
        let line =
            |(root, point): &(&str, &str)| format!("700 699 8:1 {root} {point} rw,relatime - ext4 /dev/sda1 rw\n");
        lines.iter().map(line).collect()
    }

    fn proof(mountinfo: &str, uid: &str) -> bool {
        Identity::default().proof_with(&push("p", "n", uid), || Some(mountinfo.to_owned())).is_some()
    }

    #[test]
    fn what_the_spec_sets_is_compared() {
        let own = Identity { name: Some("p".into()), namespace: Some("n".into()), uid: Some(A.into()) };
        let proof = |push: &Push| own.proof_with(push, || panic!("POD_UID is enough"));
        assert_eq!(proof(&push("p", "n", A)), None);
        assert_eq!(proof(&push("", "", "")), None);
        assert!(proof(&push("q", "n", A)).unwrap().contains("POD_NAME"));
        assert!(proof(&push("p", "m", A)).unwrap().contains("POD_NAMESPACE"));
        assert!(proof(&push("p", "n", B)).unwrap().contains("POD_UID"));
    }

    #[test]
    fn the_mounts_of_another_pod_are_a_proof() {
        let kubelet = format!("/var/lib/kubelet/pods/{A}/volumes/kubernetes.io~empty-dir/x");
        assert!(!proof(&mounts(&[(&kubelet, "/x")]), A));
        assert!(proof(&mounts(&[(&kubelet, "/x")]), B));
        let as_source = format!("700 699 0:9 / /x rw shared:1 master:2 - ext4 /kubelet/pods/{A}/v rw\n");
        assert!(proof(&as_source, B));
        assert!(!proof(&as_source, A));
    }

    #[test]
    fn what_cannot_be_known_is_accepted() {
        assert!(!proof("", B));
        assert!(!proof("nonsense\n700 699", B));
        assert!(!proof(&mounts(&[("/", "/"), ("/var/lib/kubelet/pods/readme/x", "/y")]), B));
        // A monitor that mounts other pods' directories, without a mark of its own.
        let (a, static_pod) = (format!("/pods/{A}/v"), format!("/pods/{STATIC}/v"));
        assert!(!proof(&mounts(&[(&a, "/a"), (&static_pod, "/b")]), B));
        // A static pod has another UID in the API than on its node.
        assert!(!proof(&mounts(&[(&static_pod, "/etc/hosts")]), B));
        assert!(Identity::default().proof_with(&push("p", "n", ""), || panic!("nothing to compare")).is_none());
    }

    #[test]
    fn our_own_mount_points_outweigh_others() {
        let (a, b) = (format!("/var/lib/kubelet/pods/{A}/etc-hosts"), format!("/pods/{B}/v"));
        let mounts = mounts(&[(&b, "/b"), (&a, "/etc/hosts")]);
        assert!(!proof(&mounts, A));
        assert!(proof(&mounts, B));
    }
}
