//! A real Kubernetes control plane and a real Vault on a private network, without root and without Docker.
//!
//! The real etcd, kube-apiserver, kube-controller-manager, kube-scheduler and Vault run in namespaces of
//! their own; a node agent plays the kubelet and runs a pod's containers as local processes. Tests, the
//! demo and the benchmarks use it as a library, people as the command `testbed`.
//!
//! ```no_run
//! fn main() -> anyhow::Result<()> {
//!     testbed::enter(); // first, before a thread starts
//!     testbed::block_on(async {
//!         let bed = testbed::Testbed::builder().start().await?;
//!         println!("{}", bed.kubectl(&["get", "nodes"]).await?);
//!         bed.stop().await;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Owns: everything that it starts. Must never happen: a process, mount or file that is left behind.

mod agent;
mod built;
mod control_plane;
mod disk;
pub mod fake_node;
pub mod fake_pods;
mod needles;
pub mod network;
mod pki;
mod process;
mod sandbox;
mod servers;
mod testbed;
mod tls;
mod vault;

pub use agent::{Image, Images, KUBELET_RESTART_BASE, NodeAgent};
pub use built::{static_program, target_folder};
pub use control_plane::{ControlPlane, ControlPlaneOptions, Request};
pub use disk::Disk;
pub use needles::Needles;
pub use network::{Direction, PodNetwork};
pub use process::poll_until;
pub use rustix::process::Signal;
pub use sandbox::{ROOT, enter, find_running, host_pid, is_inside, join_command};
pub use servers::{Servers, locate_or_build};
pub use testbed::{Builder, Testbed};
pub use tls::Anybody;
pub use vault::{ControllerPolicy, KV_MOUNT, ROOT_TOKEN, TokenRole, Vault, VaultOptions, controller_rules};

/// Runs a future on a runtime with several threads: for a `main` that called [`enter`] first.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
