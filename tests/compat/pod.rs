//! A pod's own network with our init container in it, and the files that it leaves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{Ended, Running, init_program};
use crate::world::World;

/// The port that init containers listen on.
pub(crate) const PORT: u16 = 50000;

/// The network, and the directory of the credentials.
pub(crate) struct Pod {
    namespace: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) directory: TempDir,
    role_id: String,
}

/// A file that was left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) name: String,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl Pod {
    /// A network of one's own, linked to the servers.
    pub(crate) async fn new(world: &World) -> Result<Self> {
        let number = world.next_number();
        let [high, low] = number.to_be_bytes();
        let ip = Ipv4Addr::new(10, 78, high, low);
        let namespace = format!("compat{number}");
        run("ip", &["netns", "add", &namespace]).await?;
        let batch = format!(
            "ip link add c{number} type veth peer name eth0 netns {namespace} && \
             ip link set c{number} up && \
             ip -n {namespace} link set lo up && \
             ip -n {namespace} addr add {ip}/32 dev eth0 && \
             ip -n {namespace} link set eth0 up && \
             ip -n {namespace} route add default dev eth0 && \
             ip route add {ip}/32 dev c{number}"
        );
        run("sh", &["-c", &batch]).await?;
        Ok(Self { namespace, ip, directory: tempfile::tempdir()?, role_id: world.role_id.clone() })
    }

    /// Where a push goes.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), PORT)
    }

    /// Starts our init container with these variables, beside VAULT_ROLE_ID and CREDENTIALS_PATH. An empty value
    /// unsets.
    pub(crate) fn start(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Running> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(init_program()?)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("VAULT_ROLE_ID", &self.role_id)
            .env("CREDENTIALS_PATH", self.directory.path())
            .envs(environment.iter().copied());
        Running::start(command)
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn listening(&self, environment: &[(&str, &str)]) -> Result<Running> {
        let mut init = self.start(environment, &[])?;
        init.until("Listening on port").await?;
        Ok(init)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file's content.
    pub(crate) fn file(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.path(name)).with_context(|| format!("no {name}"))
    }

    /// All that was left, by name. What is no plain file has no mode.
    pub(crate) fn left(&self) -> Result<Vec<Left>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.directory.path())? {
            let (entry, is_file) = entry.and_then(|e| Ok((e.file_type()?.is_file(), e))).map(|(f, e)| (e, f))?;
            let mode = if is_file { entry.metadata()?.permissions().mode() & 0o7777 } else { 0 };
            found.push(Left { name: entry.file_name().to_string_lossy().into_owned(), mode });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// That it did its work: exit code 0, these files and no others, each mode 0444.
    pub(crate) fn expect_done(&self, ended: &Ended, names: &[&str]) -> Result<()> {
        ended.expect(0, &[])?;
        let expected: Vec<_> = names.iter().map(|&name| Left { name: name.to_owned(), mode: 0o444 }).collect();
        let left = self.left()?;
        ensure!(left == expected, "{left:?} instead of {expected:?}");
        Ok(())
    }
}

async fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().await.with_context(|| format!("no {program}"))?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
