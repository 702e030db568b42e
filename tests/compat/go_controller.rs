//! A client that behaves as the Go controller: the bytes of its recorded push, with other values.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::process::LIMIT;
use crate::tls::{self, Versions};
use crate::vectors;

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status_line: String,
    /// The rest of the head, a line each.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Reply {
    /// The number of the status.
    pub(crate) fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Whether it has this header line; names match without regard to case.
    pub(crate) fn has(&self, line: &str) -> bool {
        let normal = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        self.headers.iter().any(|header| normal(header) == normal(line))
    }
}

/// The recorded request's head, for this receiver and length.
fn head(to: SocketAddr, length: usize) -> String {
    let recorded = vectors::text("push.txt").split_once("\r\n\r\n").expect("a head ends with an empty line").0;
    let lines = recorded.lines().map(|line| match line.split_once(": ") {
        Some(("Host", _)) => format!("Host: {to}\r\n"),
        Some(("Content-Length", _)) => format!("Content-Length: {length}\r\n"),
        _ => format!("{line}\r\n"),
    });
    lines.chain(["\r\n".to_owned()]).collect()
}

/// Pushes a body.
pub(crate) async fn push(to: SocketAddr, versions: Versions, body: &str) -> Result<Reply> {
    exchange(to, versions, &format!("{}{body}", head(to, body.len()))).await
}

/// Sends a request and reads the answer. Does not wait for the end of the connection, as Go does not.
pub(crate) async fn exchange(to: SocketAddr, versions: Versions, request: &str) -> Result<Reply> {
    let is_head = request.starts_with("HEAD ");
    timeout(LIMIT, async {
        let mut stream = tls::connect(to, versions).await.context("no TLS connection")?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        loop {
            if let Some(reply) = complete(&bytes, is_head)? {
                return Ok(reply);
            }
            ensure!(stream.read_buf(&mut bytes).await? > 0, "cut off: {:?}", String::from_utf8_lossy(&bytes));
        }
    })
    .await
    .context("no answer in time")?
}

fn complete(bytes: &[u8], is_head: bool) -> Result<Option<Reply>> {
    let text = std::str::from_utf8(bytes)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let mut lines = head.split("\r\n").map(str::to_owned);
    let status_line = lines.next().unwrap_or_default();
    let reply = Reply { status_line, headers: lines.collect(), body: body.to_owned() };
    let length = reply.headers.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.context("the answer has no Content-Length")?;
    Ok((is_head || body.len() >= length).then_some(reply))
}
