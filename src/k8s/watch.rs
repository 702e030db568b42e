//! The watch of pending pods: [`Feed`], the [`PodFeed`] of the workflow.
//!
//! Owns which pods are looked at. Needs `list` and `watch` on pods and nothing else; where one namespace is watched,
//! a Role there is enough. Must never look at pods of a namespace that is not watched.

mod once;
mod session;
mod trouble;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::timeout;

pub use self::once::Waiting;
use self::session::Session;
use self::wire::{Found, Pods};
use super::health::WatchHealth;
use crate::deliver::ports::{PodEvent, PodFeed, ReadError};
use crate::domain::pod::Pod;

/// For one pod read anew. The workflow holds a slot while it waits, and asks again later.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Which namespaces are watched.
#[derive(Clone)]
pub enum NamespaceFilter {
    /// One, by its name as the API server has it (lower case): the API server is asked for its pods alone.
    One(Arc<str>),
    /// All those that match: the API server is asked for the pods of all, and the others are dropped here.
    Matching(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl NamespaceFilter {
    fn takes(&self, namespace: &str) -> bool {
        match self {
            Self::One(only) => **only == *namespace,
            Self::Matching(matches) => matches(namespace),
        }
    }

    fn scope(&self) -> Option<&str> {
        match self {
            Self::One(only) => Some(only),
            Self::Matching(_) => None,
        }
    }
}

impl fmt::Debug for NamespaceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(only) => f.debug_tuple("One").field(only).finish(),
            Self::Matching(_) => f.write_str("Matching(..)"),
        }
    }
}

/// The pending pods of the watched namespaces.
pub struct Feed {
    client: kube::Client,
    filter: NamespaceFilter,
    health: Arc<WatchHealth>,
}

impl Feed {
    /// A feed of the pods that `filter` takes. Asks nothing yet.
    pub fn new(client: kube::Client, filter: NamespaceFilter) -> Self {
        Self { client, filter, health: Arc::new(WatchHealth::new()) }
    }

    /// How the watch is.
    pub fn health(&self) -> Arc<WatchHealth> {
        Arc::clone(&self.health)
    }
}

#[async_trait]
impl PodFeed for Feed {
    /// Each call starts a watch of its own, driven by its poller: whoever is slow slows the API server down instead
    /// of filling a queue. [`Feed::health`] tells of all of them together, so call it once.
    fn events(&self) -> BoxStream<'static, PodEvent> {
        let pods = Pods::new(self.client.clone(), self.filter.scope());
        let session = Session::new(pods, self.filter.clone(), self.health());
        stream::unfold(session, |mut session| async move {
            let event = session.next().await;
            Some((event, session))
        })
        .boxed()
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ReadError> {
        // It becomes a segment of a path.
        if namespace.is_empty() || !namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(ReadError(format!("{namespace:?} is no namespace")));
        }
        let pods = Pods::new(self.client.clone(), Some(namespace));
        let selector = format!("metadata.name={name}");
        let page = timeout(READ_LIMIT, pods.page(&selector, None)).await;
        let page = page.map_err(|_| ReadError(format!("no answer within {} s", READ_LIMIT.as_secs())))?;
        for found in page.map_err(|trouble| ReadError(format!("{trouble}{}", trouble.remedy())))?.found {
            match found {
                // A server that overlooks the selector must not have us take another pod for this one.
                Found::Pod(pod) if *pod.reference.name == *name => return Ok(Some(pod)),
                Found::Pod(_) => {}
                Found::Undecodable(pod) => return Err(ReadError(format!("the pod cannot be decoded: {}", pod.why))),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
