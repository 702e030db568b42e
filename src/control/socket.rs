//! The controller's end of the socket.
//!
//! Owns the file, and the limits on who asks. Nobody can connect before the file's mode is 0600; a file there that is
//! no socket of ours is left alone, and no symbolic link is followed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{ANSWER_LIMIT, Answer, Control, FILE, MAX_PATH_BYTES, Request};

/// Connections at once: a person or two, and a script.
const MAX_CONNECTIONS: usize = 8;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 16;

/// Longest question. The longest one that there is names a pod, and has some 400 bytes.
const MAX_REQUEST_BYTES: usize = 4 << 10;

/// A question arrives within this, and so is its answer taken.
const TRANSFER_LIMIT: Duration = Duration::from_secs(5);

/// Whether an old socket still has somebody behind it shows at once.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// After `accept` failed (out of file descriptors, usually).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no control socket. The controller can do without one.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A Unix socket's path is short.
    #[error(
        "{path} has {bytes} bytes, and the path of a Unix socket has at most {MAX_PATH_BYTES}; \
         `status`, `explain` and `recover` need a shorter raftDir"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Another process listens there.
    #[error("another process answers at {0}; two controllers must not share a raftDir")]
    Occupied(PathBuf),
    /// Something else has that name.
    #[error("{0} exists and is no socket; it is left alone: remove it to have `status`, `explain` and `recover`")]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("{path} cannot be {operation}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

/// See the module. The file goes with it.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file, to tell it from one that came later.
    file: (u64, u64),
}

impl Socket {
    /// Makes the socket in `directory`, in the place of one that an earlier process has left.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn bind(directory: &Path) -> Result<Self, BindError> {
        let path = directory.join(FILE);
        let bytes = path.as_os_str().len();
        if bytes > MAX_PATH_BYTES {
            return Err(BindError::TooLong { path, bytes });
        }
        remove_stale(&path).await?;
        let failed = |operation| {
            let path = path.clone();
            move |cause| BindError::Io { path, operation, cause }
        };
        let socket = UnixSocket::new_stream().map_err(failed("made"))?;
        // Fails where the name exists, a symbolic link included. Nobody can connect before `listen`.
        socket.bind(&path).map_err(failed("made"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed("given mode 0600"))?;
        let made = fs::symlink_metadata(&path).map_err(failed("looked at"))?;
        let listener = socket.listen(BACKLOG).map_err(failed("listened on"))?;
        Ok(Self { listener, file: (made.dev(), made.ino()), path })
    }

    /// Answers with `control` until `stop`.
    pub async fn serve(self, control: Arc<dyn Control>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the control socket could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Beyond the limit the newcomer is dropped: those inside are bounded in time.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (control, stop) = (control.clone(), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    () = stop.cancelled() => {}
                    done = converse(stream, &*control) => {
                        if let Err(error) = done {
                            tracing::debug!(%error, "a conversation on the control socket broke");
                        }
                    }
                }
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |operation| move |cause| BindError::Io { path: path.to_owned(), operation, cause };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looked at")(error)),
    }
    match timeout(PROBE_LIMIT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("removed"))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) => Err(failed("connected to")(error)),
        Ok(Ok(_)) | Err(_) => Err(BindError::Occupied(path.to_owned())),
    }
}

/// One question, one answer.
async fn converse(mut stream: UnixStream, control: &dyn Control) -> io::Result<()> {
    let answer = match timeout(TRANSFER_LIMIT, read_line(&mut stream)).await {
        Ok(line) => match understand(&line?) {
            Ok(request) => answer(request, control).await,
            Err(why) => Answer::Error(why),
        },
        Err(_) => Answer::Error("no question came in time".to_owned()),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(TRANSFER_LIMIT, stream.write_all(&line)).await?
}

/// Up to the end of a line, of the input, or of our patience.
async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let limit = MAX_REQUEST_BYTES as u64 + 1;
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut line).await?;
    Ok(line)
}

fn understand(line: &[u8]) -> Result<Request, String> {
    if line.len() > MAX_REQUEST_BYTES {
        return Err(format!("a question has at most {MAX_REQUEST_BYTES} bytes"));
    }
    let Some(text) = line.strip_suffix(b"\n") else {
        return Err("a question is one line, and this one does not end".to_owned());
    };
    serde_json::from_slice(text).map_err(|error| format!("that is no question: {error}"))
}

async fn answer(request: Request, control: &dyn Control) -> Answer {
    let answered = timeout(ANSWER_LIMIT, async {
        match request {
            Request::Status => Answer::Status(Box::new(control.status().await)),
            Request::Explain { pod } => Answer::Explanation(Box::new(control.explain(&pod).await)),
            Request::Recover { confirm } => Answer::Recovery(control.recover(confirm).await),
        }
    });
    answered.await.unwrap_or_else(|_| Answer::Error("the controller took too long to answer".to_owned()))
}

#[cfg(test)]
mod tests;
