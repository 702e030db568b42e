//! Real sockets, in a folder of their own.

use std::os::unix::fs::symlink;

use super::super::{ClientError, Explanation, Outlook, Plan, Recovery, Status, Verdict, ask, fixtures};
use super::*;
use crate::domain::pod_name::PodName;

struct Fixed;

#[async_trait::async_trait]
impl Control for Fixed {
    async fn status(&self) -> Status {
        fixtures::status()
    }

    async fn explain(&self, pod: &PodName) -> Explanation {
        Explanation {
            pod: pod.to_string(),
            kind: "notFound".to_owned(),
            outlook: Outlook::Stuck,
            conclusion: "There is none.".to_owned(),
            facts: vec![],
            events: vec![],
            events_incomplete: None,
            advice: vec![],
        }
    }

    async fn recover(&self, confirm: bool) -> Recovery {
        let plan = Plan { survivor: "a1".to_owned(), epoch: 1, unaccounted: vec![] };
        let verdict = if confirm { Verdict::Done(plan) } else { Verdict::Possible(plan) };
        Recovery { peers: vec![], verdict }
    }
}

async fn serving(directory: &Path) -> CancellationToken {
    let stop = CancellationToken::new();
    let socket = Socket::bind(directory).await.unwrap();
    tokio::spawn(socket.serve(Arc::new(Fixed), stop.clone()));
    stop
}

async fn says(directory: &Path, question: &[u8]) -> String {
    let mut stream = UnixStream::connect(directory.join(FILE)).await.unwrap();
    // It may be closed before all of it is written.
    let _ = stream.write_all(question).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_question_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let _stop = serving(folder.path()).await;
    let answer = ask(folder.path(), &Request::Status).await.unwrap();
    assert_eq!(answer, Answer::Status(Box::new(fixtures::status())));
    let question = Request::Explain { pod: "team-a/web".parse().unwrap() };
    let Answer::Explanation(answer) = ask(folder.path(), &question).await.unwrap() else {
        unreachable!("another answer")
    };
    assert_eq!(answer.pod, "team-a/web");
    for (confirm, done) in [(false, false), (true, true)] {
        let Answer::Recovery(recovery) = ask(folder.path(), &Request::Recover { confirm }).await.unwrap() else {
            unreachable!("another answer")
        };
        assert_eq!(matches!(recovery.verdict, Verdict::Done(_)), done);
    }
}

#[tokio::test]
async fn only_its_own_user_can_open_it_and_it_goes_with_the_controller() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let socket = Socket::bind(folder.path()).await.unwrap();
    let made = fs::symlink_metadata(&path).unwrap();
    assert!(made.file_type().is_socket());
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
    drop(socket);
    assert!(fs::symlink_metadata(&path).is_err());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(ask(folder.path(), &Request::Status).await, Err(ClientError::NobodyListens(_))));
    let first = Socket::bind(folder.path()).await.unwrap();
    assert!(matches!(Socket::bind(folder.path()).await, Err(BindError::Occupied(_))));
    // A later one's file is not removed by an earlier one's end.
    fs::remove_file(&path).unwrap();
    let _second = Socket::bind(folder.path()).await.unwrap();
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone_and_no_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, precious) = (folder.path().join(FILE), folder.path().join("precious"));
    fs::write(&path, "data").unwrap();
    assert!(matches!(Socket::bind(folder.path()).await, Err(BindError::NotASocket(_))));
    assert_eq!(fs::read(&path).unwrap(), b"data");
    fs::remove_file(&path).unwrap();
    for target in ["precious", "nowhere"] {
        fs::write(&precious, "data").unwrap();
        symlink(folder.path().join(target), &path).unwrap();
        assert!(matches!(Socket::bind(folder.path()).await, Err(BindError::NotASocket(_))), "{target}");
        assert_eq!(fs::read(&precious).unwrap(), b"data");
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_long_path_is_told_by_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(100));
    let error = Socket::bind(&long).await.err().unwrap();
    assert!(matches!(error, BindError::TooLong { .. }) && error.to_string().contains("raftDir"), "{error}");
    let error = ask(&long, &Request::Status).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLong { .. }), "{error}");
}

#[tokio::test]
async fn without_a_controller_the_command_line_says_what_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let error = ask(folder.path(), &Request::Status).await.unwrap_err();
    assert!(matches!(error, ClientError::NoSocket(_)));
    let text = error.to_string();
    assert!(text.contains("is the controller running") && text.contains("raftDir"), "{text}");
}

// Bad-input table: the control socket's questions: garbage, oversized, unfinished, unknown.
#[tokio::test]
async fn bad_questions_get_an_error_and_the_next_one_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let _stop = serving(folder.path()).await;
    for (question, says_so) in [
        (&b"\n"[..], "that is no question"),
        (b"GET / HTTP/1.1\r\n\r\n", "that is no question"),
        (b"\xff\xfe\n", "that is no question"),
        (b"{\"command\":\"explode\"}\n", "that is no question"),
        (b"{\"command\":\"explain\"}\n", "that is no question"),
        (b"{\"command\":\"explain\",\"pod\":\"a/b,c\"}\n", "a pod is named NAMESPACE/NAME"),
        (b"{\"command\":\"recover\"}\n", "that is no question"),
        (b"{\"command\":\"recover\",\"confirm\":\"yes\"}\n", "that is no question"),
        (b"{\"command\":\"status\"}", "does not end"),
        (b"", "does not end"),
        (&[b'x'; MAX_REQUEST_BYTES + 10], "at most 4096 bytes"),
    ] {
        let answer = says(folder.path(), question).await;
        assert!(answer.starts_with("{\"error\":") && answer.contains(says_so), "{question:?}: {answer}");
    }
    assert!(says(folder.path(), b"{\"command\":\"status\"}\n").await.starts_with("{\"status\":{"));
}

#[tokio::test]
async fn those_who_say_nothing_do_not_take_more_than_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let _stop = serving(folder.path()).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(UnixStream::connect(folder.path().join(FILE)).await.unwrap());
    }
    let error = ask(folder.path(), &Request::Status).await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    silent.clear();
    let mut answered = false;
    for _ in 0..100 {
        answered = ask(folder.path(), &Request::Status).await.is_ok();
        if answered {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(answered);
}
