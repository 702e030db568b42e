//! Mounts as real nodes write them.

use super::*;

const UID: &str = "0b1c9ee3-7b3c-4c5e-9d0f-1b2a3c4d5e6f";
const OTHER: &str = "ffffffff-7b3c-4c5e-9d0f-1b2a3c4d5e6f";
const DIR: &str = "/var/lib/kubernetes-vault/";

/// containerd on kind: an overlay, the kubelet's own mounts, and whatever `more` says.
fn in_pod_with(more: &str) -> String {
    format!(
        "1543 1302 0:230 / / rw,relatime master:374 - overlay overlay rw,lowerdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/61/fs,upperdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/75/fs,workdir=/x/work\n\
         1544 1543 0:234 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
         1545 1543 0:235 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n\
         1549 1543 254:1 /docker/volumes/9d/_data/lib/kubelet/pods/{UID}/etc-hosts /etc/hosts rw,relatime - ext4 /dev/vda1 rw\n\
         1550 1545 254:1 /docker/volumes/9d/_data/lib/kubelet/pods/{UID}/containers/kubernetes-vault/4a3d6f0e /dev/termination-log rw,relatime - ext4 /dev/vda1 rw\n\
         1551 1543 254:1 /docker/volumes/9d/_data/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/ab/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n\
         1553 1545 0:225 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k\n\
         1303 1543 0:223 / /run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw,size=8Gi\n{more}"
    )
}

fn kind_of(mountinfo: &str) -> StorageKind {
    let storage = locate(mountinfo, DIR);
    assert_eq!(storage.pod_uid, Some(PodUid::from(UID)));
    storage.kind
}

#[test]
fn without_a_volume_it_goes_with_the_container() {
    assert_eq!(kind_of(&in_pod_with("")), StorageKind::ContainerLayer);
    // containerd with devmapper: a device of its own and no layers.
    let device = in_pod_with("").replace("overlay overlay", "ext4 /dev/mapper/contd-thin-pool-snap-17");
    assert_eq!(kind_of(&device), StorageKind::ContainerLayer);
}

#[test]
fn an_empty_dir_goes_with_the_pod() {
    for root in [
        format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/raft"),
        // /var/lib/kubelet is a partition.
        format!("/pods/{UID}/volumes/kubernetes.io~empty-dir/raft"),
        // A subPath, a btrfs subvolume, microk8s.
        format!("/@/var/snap/microk8s/common/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/raft/a"),
    ] {
        let line =
            format!("1560 1543 254:1 {root} /var/lib/kubernetes-vault rw,relatime shared:7 - ext4 /dev/vda1 rw\n");
        assert_eq!(kind_of(&in_pod_with(&line)), StorageKind::EmptyDir, "{root}");
    }
    let memory = "1560 1543 0:221 / /var/lib/kubernetes-vault rw,relatime - tmpfs tmpfs rw,size=2048k\n";
    assert_eq!(kind_of(&in_pod_with(memory)), StorageKind::EmptyDir);
}

#[test]
fn what_a_later_pod_may_get_again_outlives() {
    let csi = "1560 1543 8:32 / /var/lib/kubernetes-vault rw,relatime - ext4 /dev/sdc rw";
    let csi_bind = format!(
        "1560 1543 8:1 /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~csi/pvc-1/mount /var/lib/kubernetes-vault rw - ext4 /dev/sda1 rw"
    );
    let local = "1560 1543 8:1 /mnt/disks/ssd1 /var/lib/kubernetes-vault rw,relatime - ext4 /dev/sda1 rw";
    let local_plugin = format!(
        "1560 1543 8:1 /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~local-volume/pv-1 /var/lib/kubernetes-vault rw - ext4 /dev/sda1 rw"
    );
    let local_in_memory = "1560 1543 0:99 / /var/lib/kubernetes-vault rw,relatime - tmpfs vol1 rw";
    let host_path = "1560 1543 8:1 /var/lib/kubernetes-vault-node /var/lib/kubernetes-vault rw - xfs /dev/sda1 rw";
    let host_path_in_memory = "1560 1543 0:25 /kv /var/lib/kubernetes-vault rw - tmpfs tmpfs rw";
    let nfs = "1560 1543 0:77 / /var/lib/kubernetes-vault rw - nfs4 10.0.0.1:/export rw";
    let of_another_pod = format!(
        "1560 1543 8:1 /var/lib/kubelet/pods/{OTHER}/volumes/kubernetes.io~empty-dir/x /var/lib/kubernetes-vault rw - ext4 /dev/sda1 rw"
    );
    for line in
        [csi, &csi_bind, local, &local_plugin, local_in_memory, host_path, host_path_in_memory, nfs, &of_another_pod]
    {
        assert_eq!(kind_of(&in_pod_with(&format!("{line}\n"))), StorageKind::Outlives, "{line}");
    }
}

#[test]
fn the_innermost_mount_decides_and_names_that_only_begin_alike_do_not() {
    let beside = "1560 1543 8:32 / /var/lib/kubernetes-vault-backup rw - ext4 /dev/sdc rw\n";
    assert_eq!(kind_of(&in_pod_with(beside)), StorageKind::ContainerLayer);
    let above = "1560 1543 8:32 / /var/lib rw - ext4 /dev/sdc rw\n";
    assert_eq!(kind_of(&in_pod_with(above)), StorageKind::Outlives);
    let hidden = format!(
        "{above}1561 1560 8:1 /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/raft /var/lib/kubernetes-vault rw - ext4 /dev/sda1 rw\n"
    );
    assert_eq!(kind_of(&in_pod_with(&hidden)), StorageKind::EmptyDir);
    let on_top = format!("{hidden}1562 1561 8:48 / /var/lib/kubernetes-vault rw - ext4 /dev/sdd rw\n");
    assert_eq!(kind_of(&in_pod_with(&on_top)), StorageKind::Outlives);
}

#[test]
fn outside_of_a_pod_the_machines_disk_outlives() {
    let machine = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n24 22 0:5 / /proc rw - proc proc rw\n";
    assert_eq!(locate(machine, DIR), Storage { pod_uid: None, kind: StorageKind::Outlives });
    let docker = "600 599 0:52 / / rw,relatime master:1 - overlay overlay rw,lowerdir=a,upperdir=b,workdir=c\n";
    assert_eq!(locate(docker, DIR), Storage { pod_uid: None, kind: StorageKind::ContainerLayer });
}

#[test]
fn what_makes_no_sense_outlives() {
    for text in ["", "nonsense\n700 699", "700 699 8:1 / / rw", "700 699 8:1 / /else rw - ext4 /dev/sda1 rw"] {
        assert_eq!(locate(text, DIR), Storage { pod_uid: None, kind: StorageKind::Outlives }, "{text:?}");
    }
}

#[test]
fn a_static_pods_uid_is_not_the_apis() {
    let uid = "0123456789abcdef0123456789abcdef";
    let mounts = in_pod_with(&format!(
        "1560 1543 8:1 /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/r {DIR} rw - ext4 /dev/sda1 rw\n"
    ));
    let storage = locate(&mounts.replace(UID, uid), DIR);
    assert_eq!(storage, Storage { pod_uid: None, kind: StorageKind::EmptyDir });
}

#[test]
fn a_blank_in_a_path_is_read() {
    let line = "1560 1543 8:32 / /my\\040data rw - ext4 /dev/sdc rw\n";
    assert_eq!(locate(&in_pod_with(line), "/my data/raft").kind, StorageKind::Outlives);
}
