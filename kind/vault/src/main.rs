//! Vault in a container beside a kind cluster: kind-vault IMAGE NETWORK LABEL ENGINE VERSION
//!
//! Prints its address once it answers, and keeps it until the standard input ends or a signal comes. Owns that one
//! container; the label lets `kind/down` find it should this process be killed. ENGINE is the engine's socket, VERSION
//! that of its API; testcontainers reaches it through the socket that `DOCKER_HOST` names, which is made here.

mod relay;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testcontainers::core::WaitFor;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{GenericImage, ImageExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

/// Vault's root token. The container is for tests, on a network of this machine's own.
const ROOT_TOKEN: &str = "root";
const PORT: u16 = 8200;
/// Vault answers after two seconds; the machine may be busy.
const START_LIMIT: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let usage = "usage: DOCKER_HOST=unix://SOCKET kind-vault IMAGE NETWORK LABEL ENGINE VERSION";
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context(usage);
    let (image, network, label) = (next()?, next()?, next()?);
    let (engine, version) = (next()?, next()?);
    let socket = std::env::var("DOCKER_HOST").context(usage)?;
    let socket = socket.strip_prefix("unix://").context(usage)?;
    relay::start(Path::new(socket), Path::new(&engine), &version)?;
    let (name, tag) = image.rsplit_once(':').context("the image has no tag")?;
    // No port of it is published: pods and the suite reach it by its address, and nobody else has to.
    let vault = GenericImage::new(name, tag)
        .with_wait_for(WaitFor::message_on_stdout("Vault server started!"))
        .with_network(network)
        .with_label(label, "vault")
        .with_startup_timeout(START_LIMIT)
        .with_cmd([
            "server".to_owned(),
            "-dev".to_owned(),
            "-dev-no-store-token".to_owned(),
            format!("-dev-root-token-id={ROOT_TOKEN}"),
            format!("-dev-listen-address=0.0.0.0:{PORT}"),
        ]);
    let container = vault.start().await.context("cannot start Vault's container")?;
    let address = container.get_bridge_ip_address().await.context("Vault's container has no address")?;
    println!("http://{address}:{PORT} {ROOT_TOKEN}");
    until_told().await?;
    container.rm().await.context("cannot remove Vault's container")
}

/// The holder of the other end of the standard input decides, and is not outlived.
async fn until_told() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 16];
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            read = stdin.read(&mut ignored) => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
    }
}
