//! A socket through which an engine is asked for the version of its API that it has.
//!
//! testcontainers asks for the newest version it knows, and an engine refuses what is newer than itself (Debian's speaks
//! 1.41). Owns the socket and the connections through it; changes nothing but the version in the path of a request.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// What bollard, beneath testcontainers, puts before each path.
const ASKED: &str = "/v1.53/";
/// Requests' heads are far smaller, and are written at once.
const CHUNK: usize = 64 * 1024;

/// Relays `socket` to `engine`, whose API has this version, until the runtime ends.
pub(crate) fn start(socket: &Path, engine: &Path, version: &str) -> Result<()> {
    let spoken = format!("/v{version}/");
    // Lengths in heads stay true.
    ensure!(spoken.len() == ASKED.len(), "an engine with the API version {version:?} is not known here");
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let engine = engine.to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = UnixStream::connect(&engine).await else { continue };
            let (from_client, mut to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            tokio::spawn(rewrite(from_client, to_server, spoken.clone()));
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        }
    });
    Ok(())
}

async fn rewrite(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    spoken: String,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let bytes = &mut chunk[..read];
        // The path is the second word of the first line.
        if let Some(at) = bytes.iter().position(|byte| *byte == b' ').map(|space| space + 1)
            && bytes[at..].starts_with(ASKED.as_bytes())
        {
            bytes[at..at + ASKED.len()].copy_from_slice(spoken.as_bytes());
        }
        to.write_all(bytes).await?;
    }
}
