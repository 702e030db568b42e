//! Who we are at the API server, and what we may do there: access reviews, for `check`.
//!
//! Asks only, and changes nothing: a review is an object that is not stored.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use tokio::time::timeout;

use crate::causes::with_causes;
use crate::domain::rights::{Right, Use};

/// One review, connecting included: somebody waits for it at a terminal.
const REVIEW_LIMIT: Duration = Duration::from_secs(10);

/// The API server did not say.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// It does not know us.
    #[error(
        "the API server does not accept our credentials ({0}); is the service account's token mounted and valid, or the \
         user of the kubeconfig logged in?"
    )]
    Unauthenticated(String),
    /// It has answered something else.
    #[error("the API server answers {code}: {message}; look at its log")]
    Answered {
        /// Status code.
        code: u16,
        /// Its words.
        message: String,
    },
    /// There was no answer.
    #[error("the API server cannot be reached: {0}; is its address right, and does a firewall stand in between?")]
    Unreachable(String),
}

/// By what name the API server knows us; `None` where it is too old to say.
///
/// # Errors
/// It cannot be asked anything.
pub async fn who_am_i(client: &kube::Client) -> Result<Option<String>, AccessError> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    match answered(reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await {
        Ok(review) => Ok(review.status.and_then(|status| status.user_info).and_then(|user| user.username)),
        // Before Kubernetes 1.28.
        Err(AccessError::Answered { code: 403 | 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which of `uses` we may do.
///
/// # Errors
/// It could not be asked.
pub async fn review(client: &kube::Client, uses: Vec<Use>) -> Result<Vec<(Use, bool)>, AccessError> {
    try_join_all(uses.into_iter().map(|used| async move {
        let granted = may(client, &used.right).await?;
        Ok((used, granted))
    }))
    .await
}

async fn may(client: &kube::Client, right: &Right) -> Result<bool, AccessError> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let attributes = ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(right.resource.to_owned()),
        verb: Some(right.verb.to_owned()),
        namespace: right.namespace.clone(),
        name: right.name.clone(),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let asked = SelfSubjectAccessReview { spec, ..Default::default() };
    let answer = answered(reviews.create(&PostParams::default(), &asked)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn answered<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, AccessError> {
    let answer = timeout(REVIEW_LIMIT, request).await;
    let answer =
        answer.map_err(|_| AccessError::Unreachable(format!("no answer within {} s", REVIEW_LIMIT.as_secs())))?;
    answer.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 401 => AccessError::Unauthenticated(status.message),
        kube::Error::Api(status) => AccessError::Answered { code: status.code, message: status.message },
        error => AccessError::Unreachable(with_causes(&error)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::rights::uses;
    use crate::k8s::fake_api::{Answer, FakeApi, status};

    fn review_of(allowed: bool) -> Answer {
        let object = json!({
            "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
            "status": {"allowed": allowed},
        });
        Answer::Json(201, object)
    }

    #[tokio::test]
    async fn each_right_is_asked_for_as_it_is_used() {
        let api = FakeApi::new([], review_of(true));
        let answers = review(&api.client(), uses(Some("team-a"), Some(("vault-system", "kv")))).await.unwrap();
        assert!(answers.len() == 8 && answers.iter().all(|(_, granted)| *granted));
        let asked: Vec<Value> =
            api.asked().into_iter().map(|asked| asked.body["spec"]["resourceAttributes"].clone()).collect();
        let has = |wanted: &Value| asked.contains(wanted);
        assert!(has(&json!({"group": "", "resource": "pods", "verb": "watch", "namespace": "team-a"})), "{asked:?}");
        let endpoints =
            json!({"group": "", "resource": "endpoints", "verb": "get", "namespace": "vault-system", "name": "kv"});
        assert!(has(&endpoints), "{asked:?}");
        let all = review(&api.client(), uses(None, None)).await.unwrap();
        assert!(all.iter().all(|(used, _)| used.right.namespace.is_none()));
        let last = api.asked().pop().unwrap();
        assert_eq!(last.path, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
        assert!(last.body["spec"]["resourceAttributes"].get("namespace").is_none(), "no namespace means all");
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_no_answer_is_an_error() {
        let api = FakeApi::new([], review_of(false));
        let answers = review(&api.client(), uses(None, None)).await.unwrap();
        assert!(answers.iter().all(|(_, granted)| !*granted));
        let stranger = FakeApi::new([], Answer::Json(401, status(401, "Unauthorized", "who?")));
        let error = review(&stranger.client(), uses(None, None)).await.unwrap_err();
        assert_eq!(error, AccessError::Unauthenticated("who?".to_owned()));
        assert!(matches!(who_am_i(&stranger.client()).await, Err(AccessError::Unauthenticated(_))));
        let old = FakeApi::new([], Answer::Json(404, status(404, "NotFound", "no such resource")));
        assert_eq!(who_am_i(&old.client()).await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_hangs_is_given_up_on() {
        let api = FakeApi::new([], Answer::Never);
        let error = who_am_i(&api.client()).await.unwrap_err();
        assert!(matches!(&error, AccessError::Unreachable(why) if why.contains("10 s")), "{error}");
    }
}
