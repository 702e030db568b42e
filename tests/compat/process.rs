//! A process of ours: what it prints as it prints it, and how it ends.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Long enough for two busy cores; a case waits for an event, never for this.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Our controller.
pub(crate) const CONTROLLER: &str = env!("CARGO_BIN_EXE_kubernetes-vault");

/// Our init container: the static one where `KV_INIT_BIN` names it, else the one that was built beside this test.
pub(crate) fn init_program() -> Result<PathBuf> {
    let path = match std::env::var_os("KV_INIT_BIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(CONTROLLER).with_file_name("kubernetes-vault-init"),
    };
    ensure!(path.exists(), "{} is missing: cargo build -p kubernetes-vault-init", path.display());
    Ok(path)
}

/// A running process.
pub(crate) struct Running {
    child: Child,
    out: watch::Receiver<String>,
    err: watch::Receiver<String>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Running {
    /// Starts it. It dies with this value.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let out = follow(child.stdout.take().context("no standard output")?);
        let err = follow(child.stderr.take().context("no standard error")?);
        Ok(Self { child, out, err })
    }

    /// Waits until it has said this on standard error.
    pub(crate) async fn until(&mut self, text: &str) -> Result<()> {
        let missing = {
            let said = timeout(LIMIT, self.err.wait_for(|said| said.contains(text))).await;
            said.map_or(Some("in time"), |said| said.is_err().then_some("before it ended"))
        };
        if let Some(how) = missing {
            bail!("it did not say {text:?} {how}:\n{}", self.printed());
        }
        Ok(())
    }

    /// What it has said so far.
    pub(crate) fn printed(&self) -> String {
        format!("{}{}", *self.out.borrow(), *self.err.borrow())
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn terminate(self) -> Result<Ended> {
        let id = self.child.id().context("it has ended already")?;
        let sent = Command::new("kill").arg(id.to_string()).status().await?;
        ensure!(sent.success(), "SIGTERM could not be sent");
        self.end().await
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Result<Ended> {
        let Ok(status) = timeout(LIMIT, self.child.wait()).await else {
            bail!("it does not end:\n{}", self.printed());
        };
        let code = status?.code();
        // The pipes close when the process is gone.
        while self.out.changed().await.is_ok() {}
        while self.err.changed().await.is_ok() {}
        Ok(Ended { code, out: self.out.borrow().clone(), err: self.err.borrow().clone() })
    }
}

impl Ended {
    pub(crate) fn printed(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// That it ended with this code, and said all of these on standard error.
    pub(crate) fn expect(&self, code: i32, texts: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "exit code {:?} instead of {code}:\n{}", self.code, self.printed());
        for text in texts {
            ensure!(self.err.contains(text), "it does not say {text:?}:\n{}", self.printed());
        }
        Ok(())
    }
}

fn follow(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut buffer = vec![0; 8 << 10];
        while let Ok(length) = pipe.read(&mut buffer).await {
            if length == 0 {
                return;
            }
            sender.send_modify(|said| said.push_str(&String::from_utf8_lossy(&buffer[..length])));
        }
    });
    receiver
}
