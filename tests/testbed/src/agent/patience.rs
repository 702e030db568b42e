//! Reads of the API server that outlive a restart of it, as a kubelet's do.
//!
//! Must never happen: a real answer (404, 403, 422) that is asked for again, or an outage that a pod's status shows.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between the first two tries; twice as long each time.
const FIRST: Duration = Duration::from_millis(50);
/// A server that has come back is noticed within this time.
const LONGEST: Duration = Duration::from_secs(1);
/// Longer than any case keeps a server away; after it the pod says why it does not start.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks until there is an answer.
pub(crate) async fn patiently<T, Fut>(mut ask: impl FnMut() -> Fut) -> Result<T, kube::Error>
where
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let deadline = Instant::now() + LIMIT;
    let mut pause = FIRST;
    loop {
        match ask().await {
            Err(error) if is_outage(&error) && Instant::now() < deadline => sleep(pause).await,
            answer => return answer,
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// No answer, or one that says "not now".
fn is_outage(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use kube::core::Status;

    use super::*;

    fn answer(code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("", "").with_code(code).boxed())
    }

    async fn asked(errors: &[u16]) -> (usize, bool) {
        let asked = Cell::new(0);
        let result = patiently(|| {
            let now = asked.replace(asked.get() + 1);
            let error = errors.get(now).copied();
            async move { error.map_or(Ok(()), |code| Err(answer(code))) }
        });
        let well = result.await.is_ok();
        (asked.get(), well)
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_for_and_an_answer_is_not() {
        assert_eq!(asked(&[503, 500, 429]).await, (4, true));
        assert_eq!(asked(&[404]).await, (1, false));
        assert_eq!(asked(&[403]).await, (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_without_an_end_is_told() {
        assert!(!asked(&[503; 1000]).await.1);
    }
}
