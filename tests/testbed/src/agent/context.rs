//! What the pods of one node share: client, images, names, and the table that the agent's handle reads.
//!
//! Owns: that table. Each pod's task writes its own entry; entries stay after the pod, for their logs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::AgentOptions;
use super::hosts::{self, Names};
use super::images::{Image, Images};
use super::pod::Command;
use crate::network::PodNetwork;

/// Complaints of one node are printed this often at most: a stopped API server makes thousands.
const GRUMBLE_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Context {
    pub(super) client: Client,
    pub(super) node: String,
    pub(super) node_ip: Ipv4Addr,
    pub(super) directory: PathBuf,
    pub(super) restart_base: Duration,
    pub(super) ipv6: bool,
    pub(super) volume_refresh: Duration,
    api_server: (Ipv4Addr, u16),
    images: Mutex<Images>,
    names: Mutex<Names>,
    entries: Mutex<BTreeMap<String, Entry>>,
    held: AtomicBool,
    grumbled: Mutex<Option<Instant>>,
}

/// One pod, as the agent's handle sees it.
#[derive(Debug)]
pub(super) struct Entry {
    namespace: String,
    name: String,
    pod: Pod,
    order: usize,
    pub(super) gone: bool,
    pub(super) network: Option<PodNetwork>,
    pub(super) ips: Vec<String>,
    pub(super) hostname: String,
    pub(super) hosts: Option<PathBuf>,
    pub(super) containers: BTreeMap<String, ContainerEntry>,
    pub(super) commands: mpsc::Sender<Command>,
}

/// One container of it.
#[derive(Debug)]
pub(super) struct ContainerEntry {
    pub(super) pid: Option<u32>,
    #[expect(dead_code, reason = "shown by Debug, when a case prints what it found")]
    pub(super) id: String,
    pub(super) logs: Vec<PathBuf>,
}

impl Entry {
    pub(super) fn new(pod: &Pod, commands: mpsc::Sender<Command>) -> Self {
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            pod: pod.clone(),
            order: 0,
            gone: false,
            network: None,
            ips: Vec::new(),
            hostname: String::new(),
            hosts: None,
            containers: BTreeMap::new(),
            commands,
        }
    }
}

/// Nothing that holds one of these locks can leave its data half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub(super) fn new(options: AgentOptions) -> Self {
        let names = Names::new(options.names);
        Self {
            client: options.client,
            node: options.node,
            node_ip: options.node_ip,
            directory: options.directory,
            restart_base: options.restart_base,
            ipv6: options.ipv6,
            volume_refresh: options.volume_refresh,
            api_server: options.api_server,
            images: Mutex::new(options.images),
            names: Mutex::new(names),
            entries: Mutex::default(),
            held: AtomicBool::new(false),
            grumbled: Mutex::default(),
        }
    }

    pub(super) fn image(&self, reference: &str) -> Option<Image> {
        locked(&self.images).find(reference).cloned()
    }

    pub(super) fn add_image(&self, name: &str, image: Image) -> Result<()> {
        locked(&self.images).add(name, image)
    }

    /// How containers find the API server. It is its address on the bridge: there is no kube-proxy.
    pub(super) fn cluster_variables(&self) -> Vec<(String, String)> {
        let (ip, port) = self.api_server;
        [("HOST", ip.to_string()), ("PORT", port.to_string()), ("PORT_HTTPS", port.to_string())]
            .map(|(name, value)| (format!("KUBERNETES_SERVICE_{name}"), value))
            .to_vec()
    }

    pub(super) fn enter(&self, uid: String, mut entry: Entry) {
        let mut entries = locked(&self.entries);
        entry.order = entries.len();
        entries.insert(uid, entry);
    }

    /// Changes a pod's entry.
    pub(super) fn note(&self, uid: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = locked(&self.entries).get_mut(uid) {
            change(entry);
        }
    }

    /// Reads the entry of a pod; of several of that name the one that lives, or the last one.
    pub(super) fn find<T>(&self, namespace: &str, pod: &str, get: impl FnOnce(&Entry) -> T) -> Result<T> {
        let entries = locked(&self.entries);
        let named = entries.values().filter(|entry| entry.namespace == namespace && entry.name == pod);
        let entry = named.max_by_key(|entry| (!entry.gone, entry.order));
        entry.map(get).with_context(|| format!("node {} has no pod {namespace}/{pod}", self.node))
    }

    pub(super) fn all_log_files(&self) -> Vec<PathBuf> {
        let entries = locked(&self.entries);
        entries.values().flat_map(|entry| entry.containers.values()).flat_map(|entry| entry.logs.clone()).collect()
    }

    pub(super) fn namespace_log_files(&self, namespace: &str, container: &str) -> Vec<PathBuf> {
        let entries = locked(&self.entries);
        let there = entries.values().filter(|entry| entry.namespace == namespace);
        there.filter_map(|entry| entry.containers.get(container)).flat_map(|entry| entry.logs.clone()).collect()
    }

    pub(super) fn hosts_for(&self, pod: &Pod, ips: &[String], hostname: &str) -> String {
        locked(&self.names).file_for(pod, ips, hostname)
    }

    pub(super) fn name_slice(&self, slice: &EndpointSlice) -> bool {
        locked(&self.names).apply(slice)
    }

    pub(super) fn forget_slice(&self, slice: &EndpointSlice) -> bool {
        locked(&self.names).remove(slice)
    }

    pub(super) fn write_all_hosts(&self) {
        for entry in locked(&self.entries).values() {
            let Some(path) = &entry.hosts else { continue };
            let text = self.hosts_for(&entry.pod, &entry.ips, &entry.hostname);
            if let Err(error) = hosts::write(path, &text) {
                self.grumble(&format!("{error:#}"));
            }
        }
    }

    pub(super) fn hold_statuses(&self, hold: bool) {
        self.held.store(hold, Ordering::Relaxed);
    }

    pub(super) fn statuses_are_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Prints a complaint, unless one was printed just now.
    pub(super) fn grumble(&self, message: &str) {
        let mut grumbled = locked(&self.grumbled);
        if grumbled.is_none_or(|last| last.elapsed() >= GRUMBLE_EVERY) {
            *grumbled = Some(Instant::now());
            eprintln!("testbed: {}: {message}", self.node);
        }
    }
}
