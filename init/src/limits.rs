//! The numbers both ends agree on, each with its reason.
//!
//! Must never: hold a number that only one side cares about.

use std::time::Duration;

/// The port an init container listens on. Fixed by the protocol; a pod has its own address, so nothing clashes.
pub const PORT: u16 = 50_000;

/// The one path that takes a push.
pub const PATH: &str = "/";

/// What a push is sent as.
pub const CONTENT_TYPE: &str = "application/json";

/// The longest body of a push. All but a kilobyte of it is the CA bundle: 1 MiB holds some 400 certificates,
/// and it is the most that a Secret or ConfigMap can carry, which is where such bundles come from.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// The longest request head (request line and headers together). A push needs about 200 bytes.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// The most headers in one request. A push has five; proxies and service meshes add a dozen.
pub const HEADERS_MAX: usize = 64;

/// The longest body an init container answers with: one line. A sender need not read any further.
pub const ANSWER_BYTES_MAX: usize = 4 << 10;

/// The longest attempt id.
pub const ATTEMPT_BYTES_MAX: usize = 128;

/// How long a sender waits for the answer to one push: [`WORK_MAX`] and a reserve for a slow network.
pub const SENDER_WAIT: Duration = Duration::from_secs(30);

/// How long one push may occupy an init container, from its last byte to its answer.
pub const WORK_MAX: Duration = Duration::from_secs(20);

/// How much of [`WORK_MAX`] may pass before Vault has said that the push's token is a good one. A stranger's
/// push thus keeps the door shut for half as long as a real one.
pub const LOOKUP_MAX: Duration = Duration::from_secs(10);
