//! The command line's end of the socket.
//!
//! Owns the words for everything that can be in its way: whoever types `status` has trouble already.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ANSWER_LIMIT, Answer, FILE, MAX_PATH_BYTES, Request};

/// Longest answer: five voters and some learners are 2 KiB, an explanation with its Events 20 KiB.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// The controller's own limit comes first, so that it can say so.
const PATIENCE: Duration = ANSWER_LIMIT.saturating_add(Duration::from_secs(5));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A Unix socket's path is short.
    #[error(
        "{path} has {bytes} bytes, and the path of a Unix socket has at most {MAX_PATH_BYTES}: \
         the controller has no control socket there; give it a shorter raftDir"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// No file.
    #[error(
        "there is no {0}: is the controller running on this machine, in this container, and is raftDir the same in \
         its configuration?"
    )]
    NoSocket(PathBuf),
    /// A file that nobody is behind.
    #[error("nobody listens at {0}: the controller that made it has ended")]
    NobodyListens(PathBuf),
    /// A file of another user.
    #[error("{0} may not be opened: run this as the controller's own user, or as root")]
    Denied(PathBuf),
    /// The controller does not answer.
    #[error("the controller at {0} did not answer in {seconds} s", seconds = PATIENCE.as_secs())]
    Late(PathBuf),
    /// The connection broke.
    #[error("the connection to the controller at {path} broke")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Another program, or another version.
    #[error("what answers at {path} cannot be understood: is it of the same version?")]
    Garbage {
        /// The socket.
        path: PathBuf,
        /// What the decoder says.
        #[source]
        cause: serde_json::Error,
    },
    /// The controller says why it cannot.
    #[error("the controller answers: {0}")]
    Told(String),
}

/// Asks the controller whose `raftDir` is `directory`.
///
/// # Errors
/// Why there is no answer, in words for whoever has typed the command.
pub async fn ask(directory: &Path, request: &Request) -> Result<Answer, ClientError> {
    let path = directory.join(FILE);
    let bytes = path.as_os_str().len();
    if bytes > MAX_PATH_BYTES {
        return Err(ClientError::TooLong { path, bytes });
    }
    let exchanged = timeout(PATIENCE, exchange(&path, request)).await;
    let line = match exchanged {
        Ok(Ok(line)) => line,
        Ok(Err(cause)) => return Err(in_the_way(path, cause)),
        Err(_) => return Err(ClientError::Late(path)),
    };
    match serde_json::from_slice(&line) {
        Ok(Answer::Error(why)) => Err(ClientError::Told(why)),
        Ok(answer) => Ok(answer),
        Err(cause) => Err(ClientError::Garbage { path, cause }),
    }
}

async fn exchange(path: &Path, request: &Request) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::Error::other("it was closed without an answer; too many may ask at once"));
    }
    Ok(answer)
}

fn in_the_way(path: PathBuf, cause: io::Error) -> ClientError {
    match cause.kind() {
        io::ErrorKind::NotFound => ClientError::NoSocket(path),
        io::ErrorKind::ConnectionRefused => ClientError::NobodyListens(path),
        io::ErrorKind::PermissionDenied => ClientError::Denied(path),
        _ => ClientError::Broken { path, cause },
    }
}
