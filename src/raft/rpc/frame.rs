//! Frames: a length, a version, a body.
//!
//! Owns the limits of a frame. A body is read as it arrives, so that a length alone claims no memory.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version of what follows the length. A body that an earlier version could not read raises it.
pub const VERSION: u8 = 1;

/// Largest body: a replication payload of 300 entries of a few hundred bytes is 100 KiB; a piece of a snapshot 1 MiB.
pub const MAX_BODY: usize = 8 << 20;

/// How a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke, or ended in the middle of a frame.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The other end closed the connection between two frames.
    #[error("the connection was closed")]
    Closed,
    /// More than is read there: [`MAX_BODY`] where nothing less is said.
    #[error("a frame of {0} bytes, which is more than is read")]
    Oversized(usize),
    /// Written by another version.
    #[error("a frame of version {0}; this replica speaks version {VERSION}")]
    Version(u8),
    /// Not what a frame of this version holds.
    #[error("a frame that cannot be decoded")]
    Body(#[source] postcard::Error),
}

impl FrameError {
    /// A label for metrics, of a bounded set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Io(_) => "broken",
            Self::Closed => "closed",
            Self::Oversized(_) => "oversized",
            Self::Version(_) => "version",
            Self::Body(_) => "undecodable",
        }
    }
}

/// Reads one frame.
///
/// # Errors
/// As [`FrameError`]; the connection must not be used any further then.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<T, FrameError> {
    let body = read_bytes(stream).await?;
    postcard::from_bytes(&body).map_err(FrameError::Body)
}

/// Reads one frame of at most `limit` bytes.
///
/// # Errors
/// As for [`read`].
pub async fn read_within<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<T, FrameError> {
    let body = read_bytes_within(stream, limit).await?;
    postcard::from_bytes(&body).map_err(FrameError::Body)
}

/// Reads one frame's body as it is.
///
/// # Errors
/// As for [`read`].
pub async fn read_bytes(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, FrameError> {
    read_bytes_within(stream, MAX_BODY).await
}

async fn read_bytes_within(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut head = [0; 5];
    let got = stream.read(&mut head[..1]).await?;
    if got == 0 {
        return Err(FrameError::Closed);
    }
    stream.read_exact(&mut head[1..]).await?;
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length > limit {
        return Err(FrameError::Oversized(length));
    }
    if head[4] != VERSION {
        return Err(FrameError::Version(head[4]));
    }
    let mut body = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut body).await?;
    if read < length {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(body)
}

/// Writes one frame, and sends it off.
///
/// # Errors
/// As [`FrameError`]; nothing was written of a body that is too large.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> Result<(), FrameError> {
    let body = postcard::to_stdvec(value).map_err(FrameError::Body)?;
    write_bytes(stream, &body).await
}

/// Writes one frame with that body.
///
/// # Errors
/// As for [`write()`].
pub async fn write_bytes(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BODY);
    let length = length.ok_or(FrameError::Oversized(body.len()))?;
    let mut frame = Vec::with_capacity(body.len() + 5);
    frame.extend(length.to_be_bytes());
    frame.push(VERSION);
    frame.extend(body);
    // One write: a frame that fits goes out in one segment.
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_from(bytes: &[u8]) -> Result<String, FrameError> {
        read(&mut &*bytes).await
    }

    #[tokio::test]
    async fn a_frame_is_read_as_it_was_written() {
        let mut wire = Vec::new();
        write(&mut wire, &"claim").await.unwrap();
        assert_eq!(read_from(&wire).await.unwrap(), "claim");
    }

    // Bad-input table: frames oversized, truncated, of an unknown version.
    #[tokio::test]
    async fn what_is_no_frame_is_told_apart_and_claims_no_memory() {
        let mut wire = Vec::new();
        write(&mut wire, &"claim").await.unwrap();
        assert!(matches!(read_from(&wire[..wire.len() - 1]).await, Err(FrameError::Io(_))));
        assert!(matches!(read_from(&wire[..3]).await, Err(FrameError::Io(_))));
        assert!(matches!(read_from(&[]).await, Err(FrameError::Closed)));
        assert!(matches!(read_from(b"\x7f\xff\xff\xff\x01").await, Err(FrameError::Oversized(0x7fff_ffff))));
        wire[4] = 9;
        assert!(matches!(read_from(&wire).await, Err(FrameError::Version(9))));
        wire[4] = VERSION;
        wire[5] = 0xff;
        assert!(matches!(read_from(&wire).await, Err(FrameError::Body(_))));
        assert!(matches!(write(&mut Vec::new(), &vec![0u8; MAX_BODY]).await, Err(FrameError::Oversized(_))));
    }
}
