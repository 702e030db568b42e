//! The section `health`.

use super::lenient::{Context, Section};
use super::listen::{self, ListenAddr};

/// Where `/livez` and `/readyz` are served, over plain HTTP: the kubelet asks them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// `health.address`: the address to listen on. Default `:8080`.
    pub address: ListenAddr,
}

pub(super) fn read(section: &Section<'_>, cx: &mut Context<'_>) -> Health {
    Health { address: listen::read(section, ListenAddr::port(8080), cx) }
}
