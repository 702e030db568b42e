//! The pods that wait, read once, for `check`.
//!
//! Owns the limit on how many pods are looked at. The running controller does not list: it watches.

use super::Feed;
use super::wire::{Found, Pods};
use crate::deliver::ports::ReadError;
use crate::domain::pod::Pod;

/// Pages of pending pods that are looked at: 10,000 pods. A cluster with more of them has other worries.
const MOST_PAGES: usize = 50;

/// Which pods wait.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Those with our annotations, in watched namespaces.
    pub pods: Vec<Pod>,
    /// There were more pending pods than are looked at.
    pub cut: bool,
    /// Namespace and name of pods that could not be decoded.
    pub undecodable: Vec<String>,
}

impl Feed {
    /// The pending pods that carry annotations of ours, by a fresh list.
    ///
    /// # Errors
    /// The API server did not say.
    pub async fn waiting(&self) -> Result<Waiting, ReadError> {
        let pods = Pods::new(self.client.clone(), self.filter.scope());
        let (mut waiting, mut more) = (Waiting::default(), None);
        for _ in 0..MOST_PAGES {
            let page = pods.page("status.phase=Pending", more).await;
            let page = page.map_err(|trouble| ReadError(format!("{trouble}{}", trouble.remedy())))?;
            for found in page.found {
                match found {
                    Found::Pod(pod) if pod.wish.is_some() && self.filter.takes(&pod.reference.namespace) => {
                        waiting.pods.push(pod);
                    }
                    Found::Pod(_) => {}
                    Found::Undecodable(pod) => waiting.undecodable.push(pod.pod),
                }
            }
            more = page.more;
            if more.is_none() {
                return Ok(waiting);
            }
        }
        Ok(Waiting { cut: true, ..waiting })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::k8s::fake_api::{Answer, FakeApi, page, pod, status};
    use crate::k8s::watch::NamespaceFilter;

    #[tokio::test]
    async fn annotated_pods_of_watched_namespaces_are_found_on_every_page() {
        let mut stranger = pod("team-a", "stranger", "1");
        stranger["metadata"]["annotations"] = serde_json::Value::Null;
        let first = page("5", "next", &[pod("team-a", "one", "1"), pod("other", "two", "2"), stranger]);
        let last = page("5", "", &[pod("team-b", "three", "3")]);
        let api = FakeApi::new([Answer::Json(200, first)], Answer::Json(200, last));
        let filter = NamespaceFilter::Matching(Arc::new(|namespace: &str| namespace.starts_with("team-")));
        let waiting = Feed::new(api.client(), filter).waiting().await.unwrap();
        let names: Vec<String> = waiting.pods.iter().map(|pod| pod.reference.to_string()).collect();
        assert_eq!(names, ["team-a/one", "team-b/three"]);
        assert!(!waiting.cut);
        let asked = api.asked();
        assert!(asked.len() == 2 && asked.iter().all(|asked| asked.query.contains("status.phase%3DPending")));
        assert!(asked[1].query.contains("continue=next"));
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_cut_and_says_so() {
        let api = FakeApi::new([], Answer::Json(200, page("5", "more", &[pod("team-a", "one", "1")])));
        let waiting = Feed::new(api.client(), NamespaceFilter::One("team-a".into())).waiting().await.unwrap();
        assert!(waiting.cut);
        assert_eq!(api.asked().len(), MOST_PAGES);
        assert!(api.asked()[0].path.contains("/namespaces/team-a/"));
    }

    #[tokio::test]
    async fn without_the_right_the_error_names_it() {
        let api = FakeApi::new([], Answer::Json(403, status(403, "Forbidden", "no")));
        let error = Feed::new(api.client(), NamespaceFilter::One("a".into())).waiting().await.unwrap_err();
        assert!(error.to_string().contains("needs list and watch on pods"), "{error}");
    }
}
