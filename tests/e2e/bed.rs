//! The clusters that cases share, each started by the first case that needs it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Result, anyhow};
use futures::future::LocalBoxFuture;
use tokio::runtime::Runtime;

use super::cluster::{Cluster, Place};

/// A case: what it checks, on which cluster.
pub(crate) type Case = fn(Arc<Cluster>) -> LocalBoxFuture<'static, Result<()>>;

/// What a case needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// Any cluster. Cases of this kind run beside each other.
    Any,
    /// One whose nodes can be reached: a testbed, or kind. Beside others as well.
    Node,
    /// A kind cluster: what only a real kubelet shows.
    Kind,
    /// A kind cluster of three nodes.
    ThreeNodes,
    /// A testbed, because it looks into processes. Beside others as well.
    Testbed,
    /// A testbed of its own kind, whose servers it may stop; Vault serves TLS there. One case at a time.
    Breakable,
}

impl On {
    /// Whether a case that needs this can run there.
    pub(crate) fn runs_at(self, place: Place) -> bool {
        match self {
            Self::Any => true,
            Self::Node => place != Place::Attached,
            Self::Kind => place == Place::Kind,
            Self::ThreeNodes => place == Place::Kind && std::env::var("KV_E2E_NODES").as_deref() == Ok("3"),
            Self::Testbed | Self::Breakable => place == Place::Testbed,
        }
    }
}

/// The clusters.
pub(crate) struct Beds {
    place: Place,
    runtime: OnceLock<Runtime>,
    shared: OnceLock<Started>,
    breakable: OnceLock<Started>,
    one_at_a_time: Mutex<()>,
}

type Started = Result<Arc<Cluster>, String>;

impl Beds {
    pub(crate) fn new(place: Place) -> Self {
        let (runtime, shared, breakable) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { place, runtime, shared, breakable, one_at_a_time: Mutex::new(()) }
    }

    /// Runs a case on the cluster that it needs.
    pub(crate) fn run(&self, on: On, case: Case) -> Result<()> {
        let breaks = on == On::Breakable;
        // A case that failed leaves nothing half done here: poison means nothing.
        let _alone = breaks.then(|| self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner));
        let runtime = self.runtime();
        let slot = if breaks { &self.breakable } else { &self.shared };
        let started = slot.get_or_init(|| {
            let cluster = runtime.block_on(async {
                match self.place {
                    Place::Testbed => Cluster::start(breaks).await,
                    place => Cluster::attach(place).await,
                }
            });
            cluster.map(Arc::new).map_err(|error| format!("{error:#}"))
        });
        let cluster = started.as_ref().map_err(|error| anyhow!("there is no cluster: {error}"))?.clone();
        runtime.block_on(case(cluster))
    }

    /// Ends what was started.
    pub(crate) fn stop(&self) {
        for cluster in [&self.shared, &self.breakable].into_iter().filter_map(|slot| slot.get()?.as_ref().ok()) {
            self.runtime().block_on(cluster.stop());
        }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built")
        })
    }
}
