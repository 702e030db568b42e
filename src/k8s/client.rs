//! The client of the API server: where it is, who we are, how long we wait for a connection.
//!
//! Owns the HTTP stack. It is kube's layers for address and credentials on a client of our own, because kube's ready
//! one retries by itself (15 times, up to 1,000 s apart, invisible to our back-off) and logs each failed request as
//! an error. Must never send credentials to another host, and never go through a proxy that was meant for Vault.

use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
pub use kube::Client;
use kube::Config;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{InClusterError, KubeConfigOptions, KubeconfigError};
use tower::BoxError;
use tower::util::MapErrLayer;

/// A connection to an API server in the same network takes milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word (a node lost, a NAT entry dropped) is noticed after about half a minute: a
/// watch can be silent for a minute in good health, so silence alone says nothing.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(20);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TRIES: u32 = 3;
/// The watch has a connection of its own; reads and Events share these. An idle TLS connection costs some 20 KiB.
const IDLE_CONNECTIONS: usize = 2;
/// Idle connections are closed before a load balancer forgets them.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// What the API server's audit log knows us by.
const AGENT: &str = concat!("kubernetes-vault/", env!("CARGO_PKG_VERSION"));

/// There is no API server to talk to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `KUBECONFIG` is set, and useless.
    #[error("KUBECONFIG is set but cannot be used; correct the file, or unset KUBECONFIG inside a cluster")]
    Kubeconfig(#[source] KubeconfigError),
    /// Neither in a pod nor with a kubeconfig.
    #[error(
        "neither inside a Kubernetes cluster nor with a kubeconfig that can be used; set KUBECONFIG, or run this in the \
         controller's pod"
    )]
    Nowhere(#[source] KubeconfigError),
    /// Not in a pod, or in one without a service account token.
    #[error(
        "not inside a Kubernetes cluster: run as a pod whose service account token is mounted \
         (automountServiceAccountToken), or set KUBECONFIG for development"
    )]
    NotInCluster(#[source] InClusterError),
    /// The CA or the credentials are unusable.
    #[error("the API server's CA or our credentials cannot be used")]
    Credentials(#[source] kube::Error),
}

/// A client for the cluster that we are in; with `KUBECONFIG` set, for the one that it names.
///
/// Asks the API server nothing. Token and CA files are read anew while it runs.
///
/// # Errors
/// With the remedy, as [`ClientError`].
pub async fn connect() -> Result<kube::Client, ClientError> {
    // Not kube's own inference: that one takes ~/.kube/config too, which means somebody's cluster of yesterday.
    let mut config = if std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty()) {
        Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(ClientError::Kubeconfig)?
    } else {
        Config::incluster().map_err(ClientError::NotInCluster)?
    };
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    build(&config).map_err(ClientError::Credentials)
}

/// A client as somebody at a terminal wants it: for the cluster of `KUBECONFIG`, or the one that we are in, or the one of
/// `~/.kube/config`. Also returns which of them.
///
/// # Errors
/// With the remedy, as [`ClientError`].
pub async fn connect_from_anywhere() -> Result<(kube::Client, Where), ClientError> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set("KUBECONFIG") || is_set("KUBERNETES_SERVICE_HOST") {
        let at = if is_set("KUBECONFIG") { Where::Kubeconfig } else { Where::InCluster };
        return Ok((connect().await?, at));
    }
    let mut config = Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(ClientError::Nowhere)?;
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    Ok((build(&config).map_err(ClientError::Credentials)?, Where::Kubeconfig))
}

/// Where a client is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Inside of the cluster, with the pod's service account.
    InCluster,
    /// Outside, with the user of a kubeconfig.
    Kubeconfig,
}

fn build(config: &Config) -> Result<kube::Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    tcp.set_keepalive(Some(KEEPALIVE_AFTER));
    tcp.set_keepalive_interval(Some(KEEPALIVE_EVERY));
    tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_LIMIT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(tls);
    let stack = ClientBuilder::new(http, config.default_namespace.clone())
        .with_layer(&MapErrLayer::new(BoxError::from))
        .with_layer(&config.extra_headers_layer()?);
    // Credentials are added last, so that whatever is sent carries the newest.
    Ok(match config.auth_layer()? {
        Some(credentials) => stack.with_layer(&credentials).with_layer(&config.base_uri_layer()).build(),
        None => stack.with_layer(&config.base_uri_layer()).build(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_is_built_without_asking_the_server() {
        let mut config = Config::new("https://192.0.2.1:6443".parse().unwrap());
        config.root_cert = Some(Vec::new());
        assert!(build(&config).is_ok());
    }

    #[test]
    fn outside_of_a_cluster_the_error_names_the_remedy() {
        // Never a cluster in a test: the variables are missing.
        let Err(error) = Config::incluster() else { return };
        let text = ClientError::NotInCluster(error).to_string();
        assert!(text.contains("KUBECONFIG") && text.contains("automountServiceAccountToken"), "{text}");
    }
}
